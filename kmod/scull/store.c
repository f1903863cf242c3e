// SPDX-License-Identifier: GPL-2.0
/*
 * store.c - a memory that is read and written like a file.
 *
 * Bytes are in quanta, pointers to quanta in sets, and sets are found by their
 * number in an xarray, so that a write far out costs no more than one near by.
 * A quantum is allocated when it is first written; what never was written
 * reads as zeros. All of it hangs on one pointer: truncation takes that away
 * under the lock, and frees in its own time.
 */
#include <linux/gfp.h>
#include <linux/math64.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/xarray.h>
#include "store.h"

/*
 * The memory is of the user's choosing: it is charged to his cgroup, and when
 * there is none he gets ENOMEM, instead of somebody being killed for it.
 */
#define SCULL_GFP (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN | __GFP_ZERO)

struct scull_data {
	struct xarray sets;	/* number of a set -> void *quanta[qset] */
	struct scull_layout layout;
	loff_t size;
};

/* Where a byte is: its quantum's set, its quantum in the set, itself in the quantum. */
struct scull_place {
	unsigned long set;
	u32 quantum;
	u32 byte;
};

bool scull_readers_in_parallel;

/* The lock. */

static void scull_lock_init(struct scull_lock *lock)
{
	sema_init(&lock->sem, 1);
	init_rwsem(&lock->rwsem);
}

static int scull_lock_for_reading(struct scull_lock *lock)
{
	int interrupted = scull_readers_in_parallel ? down_read_interruptible(&lock->rwsem) :
						      down_interruptible(&lock->sem);

	return interrupted ? -ERESTARTSYS : 0;
}

static void scull_unlock_reading(struct scull_lock *lock)
{
	if (scull_readers_in_parallel)
		up_read(&lock->rwsem);
	else
		up(&lock->sem);
}

/* Of an rwsem's writers only a fatal signal ends the wait: the kernel has no other call. */
static int scull_lock_for_writing(struct scull_lock *lock)
{
	int interrupted = scull_readers_in_parallel ? down_write_killable(&lock->rwsem) :
						      down_interruptible(&lock->sem);

	return interrupted ? -ERESTARTSYS : 0;
}

static void scull_unlock_writing(struct scull_lock *lock)
{
	if (scull_readers_in_parallel)
		up_write(&lock->rwsem);
	else
		up(&lock->sem);
}

/* From here on it is unlocked as by a reader. */
static void scull_lock_downgrade(struct scull_lock *lock)
{
	if (scull_readers_in_parallel)
		downgrade_write(&lock->rwsem);
}

static void scull_assert_locked(struct scull_store *store)
{
	if (scull_readers_in_parallel)
		lockdep_assert_held(&store->lock.rwsem);
}

static void scull_assert_locked_for_writing(struct scull_store *store)
{
	if (scull_readers_in_parallel)
		lockdep_assert_held_write(&store->lock.rwsem);
}

/* Allocation. */

static void *scull_alloc(struct scull_store *store, size_t size)
{
	void *memory = kmalloc(size, SCULL_GFP);

	if (memory)
		atomic_long_add(size, store->allocated);
	return memory;
}

static void scull_free(struct scull_store *store, void *memory, size_t size)
{
	if (!memory)
		return;
	atomic_long_sub(size, store->allocated);
	kfree(memory);
}

static size_t scull_set_size(const struct scull_layout *layout)
{
	return array_size(layout->qset, sizeof(void *));
}

static void scull_data_free(struct scull_store *store, struct scull_data *data)
{
	unsigned long number;
	void **quanta;
	u32 i;

	if (!data)
		return;
	xa_for_each(&data->sets, number, quanta) {
		for (i = 0; i < data->layout.qset; i++)
			scull_free(store, quanta[i], data->layout.quantum);
		scull_free(store, quanta, scull_set_size(&data->layout));
		cond_resched();
	}
	xa_destroy(&data->sets);
	scull_free(store, data, sizeof(*data));
}

static struct scull_data *scull_data_alloc(struct scull_store *store)
{
	struct scull_data *data = scull_alloc(store, sizeof(*data));

	if (!data)
		return NULL;
	xa_init_flags(&data->sets, XA_FLAGS_ACCOUNT);
	data->layout = store->layout;
	return data;
}

/* Places. */

static int scull_find(const struct scull_layout *layout, loff_t pos, struct scull_place *place)
{
	u64 rest, set;

	set = div64_u64_rem(pos, (u64)layout->quantum * layout->qset, &rest);
	place->set = set;
	if (place->set != set)
		return -EFBIG;
	place->quantum = div_u64_rem(rest, layout->quantum, &place->byte);
	return 0;
}

/* The quantum at a place, NULL when it was never written. */
static void *scull_look_up(struct scull_data *data, const struct scull_place *place)
{
	void **quanta = xa_load(&data->sets, place->set);

	return quanta ? quanta[place->quantum] : NULL;
}

/* The quantum at a place, made when there is none; NULL when there is no memory. */
static void *scull_make(struct scull_store *store, const struct scull_place *place)
{
	struct scull_data *data = store->data;
	void **quanta = xa_load(&data->sets, place->set);

	if (!quanta) {
		quanta = scull_alloc(store, scull_set_size(&data->layout));
		if (!quanta)
			return NULL;
		if (xa_err(xa_store(&data->sets, place->set, quanta, SCULL_GFP & ~__GFP_ZERO))) {
			scull_free(store, quanta, scull_set_size(&data->layout));
			return NULL;
		}
	}
	if (!quanta[place->quantum])
		quanta[place->quantum] = scull_alloc(store, data->layout.quantum);
	return quanta[place->quantum];
}

/* Reading and writing, with the lock held. */

static int scull_read_quantum(struct scull_data *data, loff_t *pos, size_t limit,
			      struct iov_iter *to)
{
	struct scull_place place;
	size_t bytes, copied;
	void *quantum;
	int error;

	error = scull_find(&data->layout, *pos, &place);
	if (error)
		return error;
	bytes = min_t(size_t, limit, data->layout.quantum - place.byte);
	quantum = scull_look_up(data, &place);
	if (quantum)
		copied = copy_to_iter(quantum + place.byte, bytes, to);
	else
		copied = iov_iter_zero(bytes, to);
	*pos += copied;
	return copied == bytes ? 0 : -EFAULT;
}

static int scull_write_quantum(struct scull_store *store, loff_t *pos, struct iov_iter *from)
{
	struct scull_data *data = store->data;
	struct scull_place place;
	size_t bytes, copied;
	void *quantum;
	int error;

	error = scull_find(&data->layout, *pos, &place);
	if (error)
		return error;
	quantum = scull_make(store, &place);
	if (!quantum)
		return -ENOMEM;
	bytes = min_t(size_t, iov_iter_count(from), data->layout.quantum - place.byte);
	/* Not copy_from_user(): where that fails it clears the rest, and the rest may be data. */
	copied = copy_from_iter(quantum + place.byte, bytes, from);
	*pos += copied;
	if (copied && data->size < *pos)
		data->size = *pos;
	return copied == bytes ? 0 : -EFAULT;
}

/* A great many quanta: others want the processor, and somebody may want to end it. */
static int scull_pause(void)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	cond_resched();
	return 0;
}

static ssize_t scull_read_locked(struct scull_store *store, loff_t *pos, struct iov_iter *to)
{
	struct scull_data *data = store->data;
	loff_t start = *pos;
	int error = 0;

	scull_assert_locked(store);
	while (!error && data && *pos < data->size && iov_iter_count(to)) {
		error = scull_read_quantum(data, pos, min_t(u64, data->size - *pos,
							    iov_iter_count(to)), to);
		if (!error)
			error = scull_pause();
	}
	return *pos > start ? *pos - start : error;
}

static ssize_t scull_write_locked(struct scull_store *store, loff_t *pos, struct iov_iter *from)
{
	loff_t start = *pos;
	int error = 0;

	scull_assert_locked_for_writing(store);
	if (!iov_iter_count(from))
		return 0;
	if (start == LLONG_MAX)
		return -EFBIG;
	iov_iter_truncate(from, LLONG_MAX - start);
	if (!store->data)
		store->data = scull_data_alloc(store);
	if (!store->data)
		return -ENOMEM;
	while (!error && iov_iter_count(from)) {
		error = scull_write_quantum(store, pos, from);
		if (!error)
			error = scull_pause();
	}
	return *pos > start ? *pos - start : error;
}

static loff_t scull_size_locked(struct scull_store *store)
{
	return store->data ? store->data->size : 0;
}

static struct scull_data *scull_detach(struct scull_store *store)
{
	struct scull_data *data = store->data;

	scull_assert_locked_for_writing(store);
	store->data = NULL;
	return data;
}

/* What others use. */

bool scull_layout_valid(const struct scull_layout *layout)
{
	return layout->quantum >= 1 && layout->quantum <= SCULL_QUANTUM_MAX &&
	       layout->qset >= 1 && layout->qset <= SCULL_QSET_MAX;
}

void scull_store_init(struct scull_store *store, const struct scull_layout *layout,
		      atomic_long_t *allocated)
{
	scull_lock_init(&store->lock);
	store->data = NULL;
	store->layout = *layout;
	store->allocated = allocated;
}

void scull_store_destroy(struct scull_store *store)
{
	scull_data_free(store, store->data);
	store->data = NULL;
}

ssize_t scull_store_read(struct scull_store *store, loff_t *pos, struct iov_iter *to)
{
	ssize_t result = scull_lock_for_reading(&store->lock);

	if (result)
		return result;
	result = scull_read_locked(store, pos, to);
	scull_unlock_reading(&store->lock);
	return result;
}

ssize_t scull_store_write(struct scull_store *store, loff_t *pos, bool append,
			  struct iov_iter *from)
{
	ssize_t result = scull_lock_for_writing(&store->lock);

	if (result)
		return result;
	if (append)
		*pos = scull_size_locked(store);
	result = scull_write_locked(store, pos, from);
	scull_unlock_writing(&store->lock);
	return result;
}

/*
 * Freeing a large memory takes long. Readers may look at the empty store
 * meanwhile; writers wait, or who truncates and writes in a loop would have
 * his data in memory twice and more.
 */
int scull_store_truncate(struct scull_store *store)
{
	struct scull_data *data;
	int error = scull_lock_for_writing(&store->lock);

	if (error)
		return error;
	data = scull_detach(store);
	scull_lock_downgrade(&store->lock);
	scull_data_free(store, data);
	scull_unlock_reading(&store->lock);
	return 0;
}

loff_t scull_store_size(struct scull_store *store)
{
	loff_t size = scull_lock_for_reading(&store->lock);

	if (size)
		return size;
	size = scull_size_locked(store);
	scull_unlock_reading(&store->lock);
	return size;
}

int scull_store_get_layout(struct scull_store *store, struct scull_layout *layout)
{
	int error = scull_lock_for_reading(&store->lock);

	if (error)
		return error;
	*layout = store->layout;
	scull_unlock_reading(&store->lock);
	return 0;
}

int scull_store_set_layout(struct scull_store *store, const struct scull_layout *layout)
{
	int error = scull_lock_for_writing(&store->lock);

	if (error)
		return error;
	if (scull_size_locked(store)) {
		error = -EBUSY;
	} else {
		/* A write that failed can have left quanta without a byte in them. */
		scull_data_free(store, scull_detach(store));
		store->layout = *layout;
	}
	scull_unlock_writing(&store->lock);
	return error;
}
