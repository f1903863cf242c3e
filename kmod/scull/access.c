// SPDX-License-Identifier: GPL-2.0
/*
 * access.c - who may open a memory device, and which memory he gets.
 *
 * scullsingle is open once at a time. sculluid is one user's at a time, who
 * may open it often; scullwuid is the same, but others wait for their turn.
 * scullpriv shows each terminal a memory of its own.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/tty.h>
#include "access.h"

static struct scull_store *scull_open_always(struct scull_node *node, struct file *file)
{
	return &node->store;
}

static void scull_release_nothing(struct scull_node *node, struct scull_store *store)
{
}

const struct scull_access scull_free_for_all = {
	.name = "scull",
	.open = scull_open_always,
	.release = scull_release_nothing,
};

/* Counted: one open, or one user's. */

static bool scull_take_single(struct scull_node *node)
{
	bool taken;

	spin_lock(&node->guard);
	taken = node->opens == 0;
	if (taken)
		node->opens = 1;
	spin_unlock(&node->guard);
	return taken;
}

/* A program that root started for the user, and root, come in as the user does. */
static bool scull_is_owner(const struct scull_node *node)
{
	return uid_eq(node->owner, current_uid()) || uid_eq(node->owner, current_euid()) ||
	       capable(CAP_DAC_OVERRIDE);
}

static bool scull_take_for_user(struct scull_node *node)
{
	bool taken;

	spin_lock(&node->guard);
	if (node->opens == 0)
		node->owner = current_uid();
	taken = node->opens == 0 || scull_is_owner(node);
	if (taken)
		node->opens++;
	spin_unlock(&node->guard);
	return taken;
}

static struct scull_store *scull_open_single(struct scull_node *node, struct file *file)
{
	return scull_take_single(node) ? &node->store : ERR_PTR(-EBUSY);
}

static struct scull_store *scull_open_for_user(struct scull_node *node, struct file *file)
{
	return scull_take_for_user(node) ? &node->store : ERR_PTR(-EBUSY);
}

static struct scull_store *scull_open_for_user_in_turn(struct scull_node *node, struct file *file)
{
	if (scull_take_for_user(node))
		return &node->store;
	if (file->f_flags & O_NONBLOCK)
		return ERR_PTR(-EAGAIN);
	if (wait_event_interruptible(node->closed, scull_take_for_user(node)))
		return ERR_PTR(-ERESTARTSYS);
	return &node->store;
}

static void scull_release_counted(struct scull_node *node, struct scull_store *store)
{
	bool last;

	spin_lock(&node->guard);
	last = --node->opens == 0;
	spin_unlock(&node->guard);
	if (last)
		wake_up_interruptible(&node->closed);
}

/* Private: a memory for each terminal. */

/**
 * struct scull_copy - a terminal's memory
 * @list: in scull_node::copies
 * @terminal: its number, which a later terminal can have again
 * @session: whose terminal it is; when that is over nobody can ask for it
 * @opens: how many have it open
 * @store: the memory
 */
struct scull_copy {
	struct list_head list;
	dev_t terminal;
	struct pid *session;
	unsigned int opens;
	struct scull_store store;
};

static void scull_copy_free(struct scull_copy *copy)
{
	list_del(&copy->list);
	put_pid(copy->session);
	scull_store_destroy(&copy->store);
	kfree(copy);
}

static bool scull_session_over(struct pid *session)
{
	bool over;

	rcu_read_lock();
	over = !pid_task(session, PIDTYPE_SID);
	rcu_read_unlock();
	return over;
}

static void scull_free_orphans(struct scull_node *node)
{
	struct scull_copy *copy, *next;

	lockdep_assert_held(&node->copies_lock);
	list_for_each_entry_safe(copy, next, &node->copies, list) {
		if (!copy->opens && scull_session_over(copy->session))
			scull_copy_free(copy);
	}
}

static struct scull_copy *scull_copy_find(struct scull_node *node, dev_t terminal,
					  struct pid *session)
{
	struct scull_copy *copy;

	lockdep_assert_held(&node->copies_lock);
	list_for_each_entry(copy, &node->copies, list) {
		if (copy->terminal == terminal && copy->session == session)
			return copy;
	}
	return NULL;
}

static struct scull_copy *scull_copy_make(struct scull_node *node, dev_t terminal,
					  struct pid *session)
{
	struct scull_copy *copy = kzalloc(sizeof(*copy), GFP_KERNEL_ACCOUNT);

	if (!copy)
		return NULL;
	copy->terminal = terminal;
	copy->session = get_pid(session);
	scull_store_init(&copy->store, &node->store.layout, &node->allocated);
	list_add(&copy->list, &node->copies);
	return copy;
}

static struct scull_store *scull_open_private(struct scull_node *node, struct file *file)
{
	struct tty_struct *tty = get_current_tty();
	struct scull_copy *copy;
	struct pid *session;
	dev_t terminal;

	if (!tty)
		return ERR_PTR(-ENXIO);	/* as /dev/tty */
	terminal = tty_devnum(tty);
	tty_kref_put(tty);
	rcu_read_lock();
	session = get_pid(task_session(current));
	rcu_read_unlock();

	mutex_lock(&node->copies_lock);
	scull_free_orphans(node);
	copy = scull_copy_find(node, terminal, session);
	if (!copy)
		copy = scull_copy_make(node, terminal, session);
	if (copy)
		copy->opens++;
	mutex_unlock(&node->copies_lock);
	put_pid(session);
	return copy ? &copy->store : ERR_PTR(-ENOMEM);
}

static void scull_release_private(struct scull_node *node, struct scull_store *store)
{
	struct scull_copy *copy = container_of(store, struct scull_copy, store);

	mutex_lock(&node->copies_lock);
	copy->opens--;
	scull_free_orphans(node);
	mutex_unlock(&node->copies_lock);
}

const struct scull_access scull_restricted[4] = {
	{ "scullsingle", scull_open_single, scull_release_counted },
	{ "sculluid", scull_open_for_user, scull_release_counted },
	{ "scullwuid", scull_open_for_user_in_turn, scull_release_counted },
	{ "scullpriv", scull_open_private, scull_release_private },
};

void scull_access_init(struct scull_node *node, const struct scull_access *access)
{
	node->access = access;
	spin_lock_init(&node->guard);
	init_waitqueue_head(&node->closed);
	mutex_init(&node->copies_lock);
	INIT_LIST_HEAD(&node->copies);
}

void scull_access_destroy(struct scull_node *node)
{
	struct scull_copy *copy, *next;

	list_for_each_entry_safe(copy, next, &node->copies, list)
		scull_copy_free(copy);
	mutex_destroy(&node->copies_lock);
}
