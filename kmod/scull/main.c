// SPDX-License-Identifier: GPL-2.0
/*
 * main.c - scull: devices that are pieces of memory, /dev/scull0 and so on,
 * and four that not everybody may open at once (access.c).
 */
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include "access.h"
#include "store.h"

#define SCULL_DEVICES_MAX 64

static unsigned int scull_devices = 4;
module_param_named(devices, scull_devices, uint, 0444);
MODULE_PARM_DESC(devices, "how many memory devices (4)");

static struct scull_layout scull_layout = { .quantum = 4000, .qset = 1000 };
module_param_named(quantum, scull_layout.quantum, uint, 0444);
MODULE_PARM_DESC(quantum, "bytes in a quantum (4000)");
module_param_named(qset, scull_layout.qset, uint, 0444);
MODULE_PARM_DESC(qset, "quanta in a set (1000)");

static char *scull_locking = "semaphore";
module_param_named(locking, scull_locking, charp, 0444);
MODULE_PARM_DESC(locking, "semaphore: one at a time (default); rwsem: one writer or many readers");

static dev_t scull_first;
static unsigned int scull_count;
static struct scull_node **scull_nodes;

static struct scull_node *scull_node_of(struct inode *inode)
{
	return container_of(inode->i_cdev, struct scull_node, cdev);
}

static int scull_open(struct inode *inode, struct file *file)
{
	struct scull_node *node = scull_node_of(inode);
	struct scull_store *store = node->access->open(node, file);
	int error;

	if (IS_ERR(store))
		return PTR_ERR(store);
	if ((file->f_flags & O_ACCMODE) == O_WRONLY) {
		error = scull_store_truncate(store);
		if (error) {
			node->access->release(node, store);
			return error;
		}
	}
	file->private_data = store;
	return 0;
}

static int scull_release(struct inode *inode, struct file *file)
{
	struct scull_node *node = scull_node_of(inode);

	node->access->release(node, file->private_data);
	return 0;
}

static ssize_t scull_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	return scull_store_read(iocb->ki_filp->private_data, &iocb->ki_pos, to);
}

static ssize_t scull_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	return scull_store_write(iocb->ki_filp->private_data, &iocb->ki_pos,
				 iocb->ki_flags & IOCB_APPEND, from);
}

static loff_t scull_llseek(struct file *file, loff_t offset, int whence)
{
	loff_t size = scull_store_size(file->private_data);

	if (size < 0)
		return size;
	return generic_file_llseek_size(file, offset, whence, LLONG_MAX, size);
}

static long scull_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct scull_store *store = file->private_data;
	void __user *user = (void __user *)argument;
	struct scull_layout layout;
	int error;

	switch (command) {
	case SCULL_IOC_GET_LAYOUT:
		error = scull_store_get_layout(store, &layout);
		if (error)
			return error;
		return copy_to_user(user, &layout, sizeof(layout)) ? -EFAULT : 0;
	case SCULL_IOC_SET_LAYOUT:
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		if (copy_from_user(&layout, user, sizeof(layout)))
			return -EFAULT;
		if (!scull_layout_valid(&layout))
			return -EINVAL;
		return scull_store_set_layout(store, &layout);
	case SCULL_IOC_RESET_LAYOUT:
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		return scull_store_set_layout(store, &scull_layout);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations scull_fops = {
	.owner = THIS_MODULE,
	.open = scull_open,
	.release = scull_release,
	.read_iter = scull_read_iter,
	.write_iter = scull_write_iter,
	.llseek = scull_llseek,
	.unlocked_ioctl = scull_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static ssize_t allocated_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct scull_node *node = container_of(dev, struct scull_node, dev);

	return sysfs_emit(text, "%ld\n", atomic_long_read(&node->allocated));
}
static DEVICE_ATTR_RO(allocated);

static struct attribute *scull_attrs[] = {
	&dev_attr_allocated.attr,
	NULL
};
ATTRIBUTE_GROUPS(scull);

static struct class scull_class = {
	.name = "scull",
};

static void scull_node_free(struct device *dev)
{
	struct scull_node *node = container_of(dev, struct scull_node, dev);

	scull_access_destroy(node);
	scull_store_destroy(&node->store);
	kfree(node);
}

/* The last step makes it visible: before that all of it is ready. */
static struct scull_node *scull_node_add(unsigned int minor, const struct scull_access *access)
{
	struct scull_node *node = kzalloc(sizeof(*node), GFP_KERNEL);
	int error;

	if (!node)
		return ERR_PTR(-ENOMEM);
	scull_store_init(&node->store, &scull_layout, &node->allocated);
	scull_access_init(node, access);
	device_initialize(&node->dev);
	node->dev.class = &scull_class;
	node->dev.groups = scull_groups;
	node->dev.release = scull_node_free;
	node->dev.devt = MKDEV(MAJOR(scull_first), MINOR(scull_first) + minor);
	if (access == &scull_free_for_all)
		error = dev_set_name(&node->dev, "%s%u", access->name, minor);
	else
		error = dev_set_name(&node->dev, "%s", access->name);
	if (error)
		goto put;
	cdev_init(&node->cdev, &scull_fops);
	node->cdev.owner = THIS_MODULE;
	error = cdev_device_add(&node->cdev, &node->dev);
	if (error)
		goto put;
	return node;
put:
	put_device(&node->dev);
	return ERR_PTR(error);
}

static void scull_remove_nodes(void)
{
	while (scull_count) {
		struct scull_node *node = scull_nodes[--scull_count];

		cdev_device_del(&node->cdev, &node->dev);
		put_device(&node->dev);
	}
}

static int scull_add_nodes(unsigned int total)
{
	while (scull_count < total) {
		const struct scull_access *access = &scull_free_for_all;
		struct scull_node *node;

		if (scull_count >= scull_devices)
			access = &scull_restricted[scull_count - scull_devices];
		node = scull_node_add(scull_count, access);
		if (IS_ERR(node)) {
			scull_remove_nodes();
			return PTR_ERR(node);
		}
		scull_nodes[scull_count++] = node;
	}
	return 0;
}

static int __init scull_check_parameters(void)
{
	if (scull_devices > SCULL_DEVICES_MAX || !scull_layout_valid(&scull_layout))
		return -EINVAL;
	if (!strcmp(scull_locking, "rwsem"))
		scull_readers_in_parallel = true;
	else if (strcmp(scull_locking, "semaphore"))
		return -EINVAL;
	return 0;
}

static int __init scull_init(void)
{
	unsigned int total;
	int error;

	error = scull_check_parameters();
	if (error)
		return error;
	total = scull_devices + ARRAY_SIZE(scull_restricted);
	scull_nodes = kcalloc(total, sizeof(*scull_nodes), GFP_KERNEL);
	if (!scull_nodes)
		return -ENOMEM;
	error = alloc_chrdev_region(&scull_first, 0, total, "scull");
	if (error)
		goto free;
	error = class_register(&scull_class);
	if (error)
		goto unregister_region;
	error = scull_add_nodes(total);
	if (error)
		goto unregister_class;
	return 0;

unregister_class:
	class_unregister(&scull_class);
unregister_region:
	unregister_chrdev_region(scull_first, total);
free:
	kfree(scull_nodes);
	return error;
}

static void __exit scull_exit(void)
{
	unsigned int total = scull_count;

	scull_remove_nodes();
	class_unregister(&scull_class);
	unregister_chrdev_region(scull_first, total);
	kfree(scull_nodes);
}

module_init(scull_init);
module_exit(scull_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Devices that are pieces of memory");
