/* SPDX-License-Identifier: GPL-2.0 */
/*
 * store.h - a memory that is read and written like a file, and the lock that
 * makes each read, write and truncation one step.
 */
#ifndef SCULL_STORE_H
#define SCULL_STORE_H

#include <linux/atomic.h>
#include <linux/rwsem.h>
#include <linux/semaphore.h>
#include <linux/types.h>
#include <linux/uio.h>
#include <scull.h>

struct scull_data;

/* One of the two, the same for all stores: see the parameter `locking`. */
struct scull_lock {
	struct semaphore sem;
	struct rw_semaphore rwsem;
};

/**
 * struct scull_store - one memory
 * @lock: protects @data, all that it points to, and @layout
 * @data: NULL when nothing was written since the last truncation
 * @layout: of the data to come; @data has its own
 * @allocated: bytes that are allocated for data; whose counter it is says who
 *	made the store
 */
struct scull_store {
	struct scull_lock lock;
	struct scull_data *data;
	struct scull_layout layout;
	atomic_long_t *allocated;
};

/* Set once, before the first store is made. */
extern bool scull_readers_in_parallel;

bool scull_layout_valid(const struct scull_layout *layout);

void scull_store_init(struct scull_store *store, const struct scull_layout *layout,
		      atomic_long_t *allocated);
/* Nobody may use the store any more. */
void scull_store_destroy(struct scull_store *store);

/*
 * All of these wait for the lock, and return -ERESTARTSYS when a signal came
 * first; then nothing has been done.
 */
ssize_t scull_store_read(struct scull_store *store, loff_t *pos, struct iov_iter *to);
/* @append: writes at the end, wherever *@pos is. */
ssize_t scull_store_write(struct scull_store *store, loff_t *pos, bool append,
			  struct iov_iter *from);
int scull_store_truncate(struct scull_store *store);
loff_t scull_store_size(struct scull_store *store);
int scull_store_get_layout(struct scull_store *store, struct scull_layout *layout);
/* -EBUSY while there is data. */
int scull_store_set_layout(struct scull_store *store, const struct scull_layout *layout);

#endif /* SCULL_STORE_H */
