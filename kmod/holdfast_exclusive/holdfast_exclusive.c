// SPDX-License-Identifier: GPL-2.0-only
/*
 * holdfast_exclusive - one owner for a device, a process or a caller inside the
 * kernel, told apart from the descriptors that lead to it.
 *
 * An open file cannot be the owner: fork(), dup() and SCM_RIGHTS make it
 * everybody's, and its release comes when the last of them lets go. So the owner
 * is a struct pid, that of the thread group, and its death is heard where
 * pidfds hear it: on the pid's own wait queue. That queue wakes inside
 * exit_notify(), under tasklist_lock, so nothing happens there but passing the
 * device on; a struct pid is counted, so a number that is used again is none of
 * our business.
 *
 * The device is handed over: whoever gives it up names the longest waiter as the
 * heir, and nobody comes between. The heir becomes the owner by itself when it
 * runs, because only then is it sure to be alive with us on its queue; an heir
 * that was killed meanwhile passes it on.
 */
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#include "hf_exclusive.h"

/* On the stack of its task, which takes hf_exclusive's lock before it leaves. */
struct hf_exclusive_waiter {
	struct list_head node;		/* empty once it was answered */
	struct task_struct *task;
	struct pid *pid;		/* of its process, or */
	const struct hf_exclusive_caller *caller;
	int answer;			/* WAITING, 0: you are the heir, or an error */
};

#define WAITING 1

/*
 * What happens to the owner happens under both locks, so that exit is on the queue
 * of whom it should be. Callers need only one of them, and take both: it is one
 * path less.
 */
static void enter(struct hf_exclusive *x, struct pid *pid)
	__acquires(&pid->wait_pidfd.lock)
	__acquires(&x->lock)
{
	spin_lock_irq(&pid->wait_pidfd.lock);
	spin_lock(&x->lock);
}

static void leave(struct hf_exclusive *x, struct pid *pid)
	__releases(&x->lock)
	__releases(&pid->wait_pidfd.lock)
{
	spin_unlock(&x->lock);
	spin_unlock_irq(&pid->wait_pidfd.lock);
}

static bool is_free(const struct hf_exclusive *x)
{
	return !READ_ONCE(x->pid) && !READ_ONCE(x->caller) && !READ_ONCE(x->heir);
}

static bool owned_by(const struct hf_exclusive *x, const struct pid *me,
		     const struct hf_exclusive_caller *caller)
{
	return caller ? READ_ONCE(x->caller) == caller : READ_ONCE(x->pid) == me;
}

/* The waiter must not be touched after this unless the lock is still held. */
static void answer(struct hf_exclusive *x, struct hf_exclusive_waiter *w, int with)
{
	lockdep_assert_held(&x->lock);
	list_del_init(&w->node);
	x->nr_waiters--;
	WRITE_ONCE(w->answer, with);
	wake_up_process(w->task);
}

/* Names the heir; false when there is none, and poll has to be woken. */
static bool pass_on(struct hf_exclusive *x)
{
	struct hf_exclusive_waiter *next;

	lockdep_assert_held(&x->lock);
	next = list_first_entry_or_null(&x->waiters, struct hf_exclusive_waiter, node);
	WRITE_ONCE(x->heir, next);
	if (!next)
		return false;
	x->since_ns = ktime_get_coarse_boottime_ns();
	answer(x, next, 0);
	return true;
}

/* Of the process that runs, or of a caller; @me's queue is locked. */
static void become_owner(struct hf_exclusive *x, struct pid *me,
			 const struct hf_exclusive_caller *caller)
{
	struct hf_exclusive_waiter *w, *next;

	lockdep_assert_held(&x->lock);
	x->token++;
	x->since_ns = ktime_get_coarse_boottime_ns();
	if (caller) {
		WRITE_ONCE(x->caller, caller);
	} else {
		lockdep_assert_held(&me->wait_pidfd.lock);
		WRITE_ONCE(x->pid, get_pid(me));
		__add_wait_queue(&me->wait_pidfd, &x->exit);
		if (thread_group_empty(current))
			return;
	}
	/* Its threads that came to wait before now wait for themselves. */
	list_for_each_entry_safe(w, next, &x->waiters, node) {
		if (caller ? w->caller == caller : w->pid == me)
			answer(x, w, -EDEADLK);
	}
}

/* True when poll has to be woken. For a process, its queue is locked. */
static bool give_up(struct hf_exclusive *x)
{
	lockdep_assert_held(&x->lock);
	if (x->pid) {
		lockdep_assert_held(&x->pid->wait_pidfd.lock);
		list_del_init(&x->exit.entry);
		/* Not the last: whoever holds the queue's lock has a reference. */
		put_pid(x->pid);
		WRITE_ONCE(x->pid, NULL);
	}
	WRITE_ONCE(x->caller, NULL);
	x->since_ns = 0;
	return !x->gone && !pass_on(x);
}

/*
 * The queue is also woken for single threads and for tracers. The same test as
 * pidfd_poll()'s, which has had three names in the kernel so far.
 */
static bool group_is_dead(struct pid *pid)
{
	struct task_struct *task;
	bool dead;

	rcu_read_lock();
	task = pid_task(pid, PIDTYPE_TGID);
	dead = !task || (READ_ONCE(task->exit_state) && thread_group_empty(task));
	rcu_read_unlock();
	return dead;
}

/*
 * In exit_notify() or release_task(), interrupts off, tasklist_lock held for
 * writing. Whoever learns from wait() that the owner died finds the device passed
 * on. Those who poll are woken from a work item: what they hang on their wait
 * queues may send signals, and that takes tasklist_lock.
 */
static int owner_exits(wait_queue_entry_t *entry, unsigned int mode, int flags, void *key)
{
	struct hf_exclusive *x = container_of(entry, struct hf_exclusive, exit);

	spin_lock(&x->lock);
	if (group_is_dead(x->pid)) {
		x->lapses++;
		if (give_up(x))
			schedule_work(&x->freed);
	}
	spin_unlock(&x->lock);
	return 0;
}

static void tell_that_it_is_free(struct hf_exclusive *x)
{
	/* Its barrier pairs with that in hf_exclusive_poll(). */
	if (wq_has_sleeper(&x->poll))
		wake_up_interruptible_poll(&x->poll, EPOLLOUT | EPOLLWRNORM);
}

static void freed_by_death(struct work_struct *work)
{
	tell_that_it_is_free(container_of(work, struct hf_exclusive, freed));
}

/**
 * hf_exclusive_init - without an owner
 * @x: the memory
 */
void hf_exclusive_init(struct hf_exclusive *x)
{
	memset(x, 0, sizeof(*x));
	spin_lock_init(&x->lock);
	INIT_LIST_HEAD(&x->waiters);
	init_waitqueue_func_entry(&x->exit, owner_exits);
	INIT_LIST_HEAD(&x->exit.entry);
	init_waitqueue_head(&x->poll);
	INIT_WORK(&x->freed, freed_by_death);
}
EXPORT_SYMBOL_GPL(hf_exclusive_init);

/**
 * hf_exclusive_shutdown - the device goes away
 * @x: the device's
 *
 * Those who wait or poll, and all who lock from now on, get -ENODEV. The owner
 * may still unlock. Files may still be open: hf_exclusive_destroy() comes later.
 */
void hf_exclusive_shutdown(struct hf_exclusive *x)
{
	struct hf_exclusive_waiter *w, *next;

	spin_lock_irq(&x->lock);
	WRITE_ONCE(x->gone, true);
	list_for_each_entry_safe(w, next, &x->waiters, node)
		answer(x, w, -ENODEV);
	spin_unlock_irq(&x->lock);
	wake_up_all(&x->poll);
}
EXPORT_SYMBOL_GPL(hf_exclusive_shutdown);

/**
 * hf_exclusive_destroy - ends it, whoever owns it
 * @x: nobody may be in, or call, any other function with it: no file is open
 *
 * Needed before the memory is freed. May sleep.
 */
void hf_exclusive_destroy(struct hf_exclusive *x)
{
	struct pid *pid;

	/* The owner is not the process that runs: find its queue, and look again. */
	spin_lock_irq(&x->lock);
	x->gone = true;
	WARN_ON_ONCE(!list_empty(&x->waiters) || x->heir);
	pid = get_pid(x->pid);
	spin_unlock_irq(&x->lock);
	if (pid) {
		enter(x, pid);
		if (x->pid)
			give_up(x);
		leave(x, pid);
		put_pid(pid);
	}
	cancel_work_sync(&x->freed);
}
EXPORT_SYMBOL_GPL(hf_exclusive_destroy);

/* 0 with the device owned, -EAGAIN when one would have to wait for it. */
static int try_to_own(struct hf_exclusive *x, struct pid *me,
		      const struct hf_exclusive_caller *caller)
{
	lockdep_assert_held(&x->lock);
	if (x->gone)
		return -ENODEV;
	if (owned_by(x, me, caller))
		return -EDEADLK;
	if (!is_free(x))
		return -EAGAIN;
	become_owner(x, me, caller);
	return 0;
}

/* Waits for an answer; 0 when there is one. */
static int wait(struct hf_exclusive_waiter *w, unsigned int state, ktime_t *deadline)
{
	int ret = 0;

	for (;;) {
		set_current_state(state);
		if (READ_ONCE(w->answer) != WAITING)
			break;
		if (signal_pending_state(state, current)) {
			ret = -ERESTARTSYS;
			break;
		}
		/* 0 when the time is over */
		if (!schedule_hrtimeout(deadline, HRTIMER_MODE_ABS)) {
			ret = -ETIMEDOUT;
			break;
		}
	}
	__set_current_state(TASK_RUNNING);
	return ret;
}

static int lock(struct hf_exclusive *x, const struct hf_exclusive_caller *caller,
		unsigned int state, ktime_t *deadline)
{
	struct pid *me = task_tgid(current);
	struct hf_exclusive_waiter w = {
		.task = current, .pid = caller ? NULL : me, .caller = caller, .answer = WAITING,
	};
	bool freed = false;
	int ret, gave_up;

	enter(x, me);
	ret = try_to_own(x, me, caller);
	if (ret == -EAGAIN) {
		list_add_tail(&w.node, &x->waiters);
		x->nr_waiters++;
	}
	leave(x, me);
	if (ret != -EAGAIN)
		return ret;

	gave_up = wait(&w, state, deadline);

	/* An answer that came at the last moment counts. */
	enter(x, me);
	if (w.answer == WAITING) {
		list_del(&w.node);
		x->nr_waiters--;
		ret = gave_up;
	} else if (w.answer == 0) {
		WRITE_ONCE(x->heir, NULL);
		if (x->gone) {
			ret = -ENODEV;
		} else if (state != TASK_UNINTERRUPTIBLE && fatal_signal_pending(current)) {
			/* It would lapse in a moment: spare the others that. */
			freed = !pass_on(x);
			ret = -ERESTARTSYS;
		} else {
			become_owner(x, me, caller);
			ret = 0;
		}
	} else {
		ret = w.answer;
	}
	leave(x, me);
	if (freed)
		tell_that_it_is_free(x);
	return ret;
}

/**
 * hf_exclusive_lock - become the owner, however long it takes
 * @x: the device's
 * @caller: who; NULL for the process
 *
 * Return: 0, -EDEADLK by its owner, -ENODEV after hf_exclusive_shutdown()
 */
int hf_exclusive_lock(struct hf_exclusive *x, const struct hf_exclusive_caller *caller)
{
	might_sleep();
	return lock(x, caller, TASK_UNINTERRUPTIBLE, NULL);
}
EXPORT_SYMBOL_GPL(hf_exclusive_lock);

/**
 * hf_exclusive_lock_killable - become the owner, or be killed
 * @x: the device's
 * @caller: who; NULL for the process
 *
 * Return: as hf_exclusive_lock(), or -ERESTARTSYS
 */
int hf_exclusive_lock_killable(struct hf_exclusive *x, const struct hf_exclusive_caller *caller)
{
	might_sleep();
	return lock(x, caller, TASK_KILLABLE, NULL);
}
EXPORT_SYMBOL_GPL(hf_exclusive_lock_killable);

/**
 * hf_exclusive_lock_interruptible - become the owner, or get a signal
 * @x: the device's
 * @caller: who; NULL for the process
 *
 * Return: as hf_exclusive_lock(), or -ERESTARTSYS
 */
int hf_exclusive_lock_interruptible(struct hf_exclusive *x,
				    const struct hf_exclusive_caller *caller)
{
	might_sleep();
	return lock(x, caller, TASK_INTERRUPTIBLE, NULL);
}
EXPORT_SYMBOL_GPL(hf_exclusive_lock_interruptible);

/**
 * hf_exclusive_lock_timeout - become the owner in time, or get a signal
 * @x: the device's
 * @caller: who; NULL for the process
 * @deadline: on CLOCK_MONOTONIC, so that a restarted call ends when it would have
 *
 * Return: as hf_exclusive_lock_interruptible(), or -ETIMEDOUT
 */
int hf_exclusive_lock_timeout(struct hf_exclusive *x, const struct hf_exclusive_caller *caller,
			      ktime_t deadline)
{
	might_sleep();
	return lock(x, caller, TASK_INTERRUPTIBLE, &deadline);
}
EXPORT_SYMBOL_GPL(hf_exclusive_lock_timeout);

/**
 * hf_exclusive_trylock - become the owner now
 * @x: the device's
 * @caller: who; NULL for the process
 *
 * Return: as hf_exclusive_lock(), or -EAGAIN
 */
int hf_exclusive_trylock(struct hf_exclusive *x, const struct hf_exclusive_caller *caller)
{
	struct pid *me = task_tgid(current);
	int ret;

	enter(x, me);
	ret = try_to_own(x, me, caller);
	leave(x, me);
	return ret;
}
EXPORT_SYMBOL_GPL(hf_exclusive_trylock);

/**
 * hf_exclusive_unlock - hand over to the longest waiter
 * @x: the device's
 * @caller: who; NULL for the process, any thread of it
 *
 * Return: 0, or -EPERM by anybody but the owner
 */
int hf_exclusive_unlock(struct hf_exclusive *x, const struct hf_exclusive_caller *caller)
{
	struct pid *me = task_tgid(current);
	bool freed = false;
	int ret = -EPERM;

	enter(x, me);
	if (owned_by(x, me, caller)) {
		freed = give_up(x);
		ret = 0;
	}
	leave(x, me);
	if (freed)
		tell_that_it_is_free(x);
	return ret;
}
EXPORT_SYMBOL_GPL(hf_exclusive_unlock);

/**
 * hf_exclusive_is_owner - may it use the device?
 * @x: the device's
 * @caller: who; NULL for the process
 *
 * For a process this stays true as long as none of its threads unlocks: while
 * one of them is in the driver, the process is not dead. A driver that must keep
 * a new owner out until an old operation ended has a mutex around operations.
 */
bool hf_exclusive_is_owner(struct hf_exclusive *x, const struct hf_exclusive_caller *caller)
{
	return owned_by(x, task_tgid(current), caller);
}
EXPORT_SYMBOL_GPL(hf_exclusive_is_owner);

/**
 * hf_exclusive_get_owner - who owns it, for users
 * @x: the device's
 * @owner: the answer; may be old when it is read
 */
void hf_exclusive_get_owner(struct hf_exclusive *x, struct hf_exclusive_owner *owner)
{
	const struct hf_exclusive_caller *caller;
	struct task_struct *task;
	struct pid *pid;

	memset(owner, 0, sizeof(*owner));
	spin_lock_irq(&x->lock);
	/* The heir cannot leave while the lock is held. */
	pid = get_pid(x->heir ? x->heir->pid : x->pid);
	caller = x->heir ? x->heir->caller : x->caller;
	owner->waiters = x->nr_waiters;
	owner->token = x->token;
	owner->lapses = x->lapses;
	owner->since_ns = x->since_ns;
	if (caller) {
		owner->state = HF_EXCLUSIVE_KERNEL;
		strscpy(owner->name, caller->name, sizeof(owner->name));
	}
	spin_unlock_irq(&x->lock);
	if (!pid)
		return;

	owner->state = HF_EXCLUSIVE_PROCESS;
	owner->pid = pid_vnr(pid);
	rcu_read_lock();
	task = pid_task(pid, PIDTYPE_TGID);
	if (task)
		get_task_comm(owner->name, task);
	rcu_read_unlock();
	put_pid(pid);
}
EXPORT_SYMBOL_GPL(hf_exclusive_get_owner);

static long lock_until(struct hf_exclusive *x, bool may_wait, void __user *arg, size_t size)
{
	struct hf_exclusive_wait until;
	int ret;

	if (size < sizeof(until))
		return -EINVAL;
	ret = copy_struct_from_user(&until, sizeof(until), arg, size);
	if (ret)
		return ret;
	if (until.flags || until.reserved || until.deadline_ns > KTIME_MAX)
		return -EINVAL;
	if (!may_wait)
		return hf_exclusive_trylock(x, NULL);
	return hf_exclusive_lock_timeout(x, NULL, ns_to_ktime(until.deadline_ns));
}

static long tell_owner(struct hf_exclusive *x, void __user *arg, size_t size)
{
	struct hf_exclusive_owner owner;
	u32 flags;

	if (size < sizeof(owner))
		return -EINVAL;
	if (get_user(flags, (u32 __user *)arg))
		return -EFAULT;
	if (flags)
		return -EINVAL;
	hf_exclusive_get_owner(x, &owner);
	if (copy_to_user(arg, &owner, sizeof(owner)) ||
	    clear_user(arg + sizeof(owner), size - sizeof(owner)))
		return -EFAULT;
	return 0;
}

/**
 * hf_exclusive_ioctl - LOCK, TRYLOCK, UNLOCK, LOCK_UNTIL and OWNER
 * @x: the device's
 * @file: the one it came by
 * @cmd: any
 * @arg: of the same ioctl; for .compat_ioctl, after compat_ptr()
 *
 * Return: the ioctl's result, or -ENOIOCTLCMD when the command is the driver's
 */
long hf_exclusive_ioctl(struct hf_exclusive *x, struct file *file, unsigned int cmd,
			unsigned long arg)
{
	bool may_wait = !(file->f_flags & O_NONBLOCK);
	void __user *data = (void __user *)arg;

	switch (cmd) {
	case HF_IOC_LOCK:
		if (arg)
			return -EINVAL;
		if (!may_wait)
			return hf_exclusive_trylock(x, NULL);
		return hf_exclusive_lock_interruptible(x, NULL);
	case HF_IOC_TRYLOCK:
		return arg ? -EINVAL : hf_exclusive_trylock(x, NULL);
	case HF_IOC_UNLOCK:
		return arg ? -EINVAL : hf_exclusive_unlock(x, NULL);
	}
	/* The size is what may differ in a command with a struct. */
	switch (cmd & ~IOCSIZE_MASK) {
	case HF_IOC_LOCK_UNTIL & ~IOCSIZE_MASK:
		return lock_until(x, may_wait, data, _IOC_SIZE(cmd));
	case HF_IOC_OWNER & ~IOCSIZE_MASK:
		return tell_owner(x, data, _IOC_SIZE(cmd));
	}
	return -ENOIOCTLCMD;
}
EXPORT_SYMBOL_GPL(hf_exclusive_ioctl);

/**
 * hf_exclusive_poll - writable when it is free
 * @x: the device's
 * @file: the one that is polled
 * @wait: of the same poll
 *
 * Who polls is in no queue: those who wait in LOCK come before.
 */
__poll_t hf_exclusive_poll(struct hf_exclusive *x, struct file *file, poll_table *wait)
{
	poll_wait(file, &x->poll, wait);
	/* On the queue before the look: who gives up looks at the queue after. */
	smp_mb();
	if (READ_ONCE(x->gone))
		return EPOLLHUP | EPOLLERR;
	return is_free(x) ? EPOLLOUT | EPOLLWRNORM : 0;
}
EXPORT_SYMBOL_GPL(hf_exclusive_poll);

/* In sysfs, for those who must not open the device only to ask. */
static ssize_t abi_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", HF_EXCLUSIVE_ABI);
}
static DEVICE_ATTR_RO(abi);

static struct hf_exclusive_owner owner_of(struct device *dev)
{
	struct hf_exclusive_owner owner;

	hf_exclusive_get_owner(dev_get_drvdata(dev), &owner);
	return owner;
}

/* "none", or what it is, its process id or 0, since when, and its name. */
static ssize_t owner_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	const struct hf_exclusive_owner o = owner_of(dev);

	if (o.state == HF_EXCLUSIVE_FREE)
		return sysfs_emit(buf, "none\n");
	return sysfs_emit(buf, "%s %d %llu %s\n",
			  o.state == HF_EXCLUSIVE_KERNEL ? "kernel" : "process",
			  o.pid, o.since_ns, o.name);
}
static DEVICE_ATTR_RO(owner);

static ssize_t waiters_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", owner_of(dev).waiters);
}
static DEVICE_ATTR_RO(waiters);

static ssize_t token_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n", owner_of(dev).token);
}
static DEVICE_ATTR_RO(token);

static ssize_t lapses_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n", owner_of(dev).lapses);
}
static DEVICE_ATTR_RO(lapses);

static struct attribute *hf_exclusive_attrs[] = {
	&dev_attr_abi.attr,
	&dev_attr_owner.attr,
	&dev_attr_waiters.attr,
	&dev_attr_token.attr,
	&dev_attr_lapses.attr,
	NULL
};

/*
 * Read-only attributes in a folder hf_exclusive of the device.
 *
 * For the groups of a class or device whose driver data (dev_set_drvdata()) is the
 * struct hf_exclusive: container_of() leads from there to the driver's struct.
 */
const struct attribute_group hf_exclusive_group = {
	.name = "hf_exclusive",
	.attrs = hf_exclusive_attrs,
};
EXPORT_SYMBOL_GPL(hf_exclusive_group);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("holdfast");
MODULE_DESCRIPTION("One owner for a device: a process or a caller inside the kernel");
