/* SPDX-License-Identifier: GPL-2.0 */
/*
 * access.h - who may open a memory device, and which memory he gets.
 */
#ifndef SCULL_ACCESS_H
#define SCULL_ACCESS_H

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>
#include <linux/wait.h>
#include "store.h"

/**
 * struct scull_node - a device node
 * @dev: in sysfs
 * @cdev: its node
 * @access: its rule
 * @store: the memory that all who open it share; scullpriv has @copies instead
 * @allocated: bytes in all memories of this node
 * @guard: protects @opens and @owner
 * @opens: how many have it open, where the rule counts them
 * @owner: the user who has it open, when @opens is not 0
 * @closed: woken when @opens gets 0
 * @copies_lock: protects @copies and what is in them, but for their stores
 * @copies: a memory for each terminal
 */
struct scull_node {
	struct device dev;
	struct cdev cdev;
	const struct scull_access *access;
	struct scull_store store;
	atomic_long_t allocated;

	spinlock_t guard;	/* see above */
	unsigned int opens;
	kuid_t owner;
	wait_queue_head_t closed;

	struct mutex copies_lock;	/* see above */
	struct list_head copies;
};

/**
 * struct scull_access - a rule
 * @name: of the device
 * @open: gives the memory that the caller gets, or an ERR_PTR
 * @release: is called once for each @open that gave one
 */
struct scull_access {
	const char *name;
	struct scull_store *(*open)(struct scull_node *node, struct file *file);
	void (*release)(struct scull_node *node, struct scull_store *store);
};

extern const struct scull_access scull_free_for_all;
extern const struct scull_access scull_restricted[4];

void scull_access_init(struct scull_node *node, const struct scull_access *access);
void scull_access_destroy(struct scull_node *node);

#endif /* SCULL_ACCESS_H */
