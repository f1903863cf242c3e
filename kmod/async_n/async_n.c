// SPDX-License-Identifier: GPL-2.0
/*
 * async_n.c - a device that holds one message: who writes replaces it, and
 * readers that asked for it are told by a signal; poll() tells as well.
 *
 * The buffer is there while anybody has the device open. It is there twice: a
 * write fills the half that nobody sees and then turns them round, so that a
 * write that fails changes nothing.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define ASYNC_N_SIZE_MAX	(64 * 1024)
#define ASYNC_N_DEVICES_MAX	64

static unsigned int async_n_size = 256;
module_param_named(size, async_n_size, uint, 0444);
MODULE_PARM_DESC(size, "bytes in a buffer (256)");

static unsigned int async_n_devices = 1;
module_param_named(devices, async_n_devices, uint, 0444);
MODULE_PARM_DESC(devices, "how many devices (1)");

/**
 * struct async_n_dev - a device
 * @dev: in sysfs
 * @cdev: its node
 * @lock: protects what follows, as far as @written; some may be looked at without
 * @readers: how many have it open for reading
 * @writers: how many have it open for writing
 * @content: the message, async_n_size bytes; NULL while nobody has it open
 * @spare: the other half, for the next message
 * @length: of the message
 * @written: how many messages there were since @content was allocated
 * @async_queue: who is told by a signal; has a lock of its own
 * @changed: who is told by poll()
 */
struct async_n_dev {
	struct device dev;
	struct cdev cdev;
	struct mutex lock;	/* see above */
	unsigned int readers;
	unsigned int writers;
	char *content;
	char *spare;
	size_t length;
	unsigned long written;
	struct fasync_struct *async_queue;
	wait_queue_head_t changed;
};

/**
 * struct async_n_file - an open
 * @dev: of what
 * @seen: async_n_dev::written when it last read
 */
struct async_n_file {
	struct async_n_dev *dev;
	unsigned long seen;
};

static dev_t async_n_first;
static unsigned int async_n_count;
static struct async_n_dev **async_n_all;

/* With the lock held, or before anybody knows the device. */
static int async_n_allocate(struct async_n_dev *dev)
{
	if (dev->content)
		return 0;
	dev->content = kzalloc(array_size(async_n_size, 2), GFP_KERNEL_ACCOUNT);
	if (!dev->content)
		return -ENOMEM;
	dev->spare = dev->content + async_n_size;
	dev->length = 0;
	WRITE_ONCE(dev->written, 0);
	return 0;
}

static void async_n_free_unused(struct async_n_dev *dev)
{
	if (dev->readers || dev->writers)
		return;
	kfree(min(dev->content, dev->spare));
	dev->content = NULL;
	dev->spare = NULL;
}

static int async_n_open(struct inode *inode, struct file *file)
{
	struct async_n_dev *dev = container_of(inode->i_cdev, struct async_n_dev, cdev);
	struct async_n_file *opened = kzalloc(sizeof(*opened), GFP_KERNEL_ACCOUNT);
	int error;

	if (!opened)
		return -ENOMEM;
	if (mutex_lock_interruptible(&dev->lock)) {
		error = -ERESTARTSYS;
		goto free;
	}
	error = async_n_allocate(dev);
	if (!error) {
		dev->readers += !!(file->f_mode & FMODE_READ);
		dev->writers += !!(file->f_mode & FMODE_WRITE);
	}
	mutex_unlock(&dev->lock);
	if (error)
		goto free;
	opened->dev = dev;
	file->private_data = opened;
	return nonseekable_open(inode, file);
free:
	kfree(opened);
	return error;
}

/* The file has left @async_queue before: __fput() sees to that. */
static int async_n_release(struct inode *inode, struct file *file)
{
	struct async_n_file *opened = file->private_data;
	struct async_n_dev *dev = opened->dev;

	mutex_lock(&dev->lock);
	dev->readers -= !!(file->f_mode & FMODE_READ);
	dev->writers -= !!(file->f_mode & FMODE_WRITE);
	async_n_free_unused(dev);
	mutex_unlock(&dev->lock);
	kfree(opened);
	return 0;
}

/* The message stays for the next reader, and for this one. */
static ssize_t async_n_read(struct file *file, char __user *user, size_t count, loff_t *pos)
{
	struct async_n_file *opened = file->private_data;
	struct async_n_dev *dev = opened->dev;
	ssize_t result;

	if (mutex_lock_interruptible(&dev->lock))
		return -ERESTARTSYS;
	result = min(count, dev->length);
	if (copy_to_user(user, dev->content, result))
		result = -EFAULT;
	else
		WRITE_ONCE(opened->seen, dev->written);
	mutex_unlock(&dev->lock);
	return result;
}

static ssize_t async_n_write(struct file *file, const char __user *user, size_t count, loff_t *pos)
{
	struct async_n_file *opened = file->private_data;
	struct async_n_dev *dev = opened->dev;

	count = min_t(size_t, count, async_n_size);
	if (mutex_lock_interruptible(&dev->lock))
		return -ERESTARTSYS;
	memset(dev->spare, 0, async_n_size);
	if (copy_from_user(dev->spare, user, count)) {
		mutex_unlock(&dev->lock);
		return -EFAULT;
	}
	swap(dev->content, dev->spare);
	dev->length = count;
	WRITE_ONCE(dev->written, dev->written + 1);
	mutex_unlock(&dev->lock);

	wake_up_interruptible_poll(&dev->changed, EPOLLIN | EPOLLRDNORM);
	kill_fasync(&dev->async_queue, SIGIO, POLL_IN);
	return count;
}

/* Readable: there is a message that this open has not read. */
static __poll_t async_n_poll(struct file *file, poll_table *wait)
{
	struct async_n_file *opened = file->private_data;
	struct async_n_dev *dev = opened->dev;
	__poll_t ready = 0;

	poll_wait(file, &dev->changed, wait);
	if ((file->f_mode & FMODE_READ) && READ_ONCE(dev->written) != READ_ONCE(opened->seen))
		ready |= EPOLLIN | EPOLLRDNORM;
	if (file->f_mode & FMODE_WRITE)
		ready |= EPOLLOUT | EPOLLWRNORM;
	return ready;
}

/* Messages are for readers. */
static int async_n_fasync(int fd, struct file *file, int on)
{
	struct async_n_file *opened = file->private_data;

	if (on && !(file->f_mode & FMODE_READ))
		return -EINVAL;
	return fasync_helper(fd, file, on, &opened->dev->async_queue);
}

static const struct file_operations async_n_fops = {
	.owner = THIS_MODULE,
	.open = async_n_open,
	.release = async_n_release,
	.read = async_n_read,
	.write = async_n_write,
	.poll = async_n_poll,
	.fasync = async_n_fasync,
};

/* What tests and the curious may know: who has it open, and what that costs. */

static struct async_n_dev *async_n_of(struct device *dev)
{
	return container_of(dev, struct async_n_dev, dev);
}

static ssize_t readers_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", READ_ONCE(async_n_of(dev)->readers));
}
static DEVICE_ATTR_RO(readers);

static ssize_t writers_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", READ_ONCE(async_n_of(dev)->writers));
}
static DEVICE_ATTR_RO(writers);

static ssize_t allocated_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", READ_ONCE(async_n_of(dev)->content) ? 2 * async_n_size : 0);
}
static DEVICE_ATTR_RO(allocated);

static struct attribute *async_n_attrs[] = {
	&dev_attr_readers.attr,
	&dev_attr_writers.attr,
	&dev_attr_allocated.attr,
	NULL
};
ATTRIBUTE_GROUPS(async_n);

static struct class async_n_class = {
	.name = "async_n",
};

static void async_n_free(struct device *device)
{
	struct async_n_dev *dev = async_n_of(device);

	mutex_destroy(&dev->lock);
	kfree(dev);
}

/* The last step makes it visible: before that all of it is ready. */
static struct async_n_dev *async_n_add(unsigned int minor)
{
	struct async_n_dev *dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	int error;

	if (!dev)
		return ERR_PTR(-ENOMEM);
	mutex_init(&dev->lock);
	init_waitqueue_head(&dev->changed);
	device_initialize(&dev->dev);
	dev->dev.class = &async_n_class;
	dev->dev.groups = async_n_groups;
	dev->dev.release = async_n_free;
	dev->dev.devt = MKDEV(MAJOR(async_n_first), MINOR(async_n_first) + minor);
	error = dev_set_name(&dev->dev, "async_n%u", minor);
	if (error)
		goto put;
	cdev_init(&dev->cdev, &async_n_fops);
	dev->cdev.owner = THIS_MODULE;
	error = cdev_device_add(&dev->cdev, &dev->dev);
	if (error)
		goto put;
	return dev;
put:
	put_device(&dev->dev);
	return ERR_PTR(error);
}

static void async_n_remove_all(void)
{
	while (async_n_count) {
		struct async_n_dev *dev = async_n_all[--async_n_count];

		cdev_device_del(&dev->cdev, &dev->dev);
		put_device(&dev->dev);
	}
}

static int async_n_add_all(void)
{
	while (async_n_count < async_n_devices) {
		struct async_n_dev *dev = async_n_add(async_n_count);

		if (IS_ERR(dev)) {
			async_n_remove_all();
			return PTR_ERR(dev);
		}
		async_n_all[async_n_count++] = dev;
	}
	return 0;
}

static int __init async_n_init(void)
{
	int error;

	if (!async_n_size || async_n_size > ASYNC_N_SIZE_MAX ||
	    !async_n_devices || async_n_devices > ASYNC_N_DEVICES_MAX)
		return -EINVAL;
	async_n_all = kcalloc(async_n_devices, sizeof(*async_n_all), GFP_KERNEL);
	if (!async_n_all)
		return -ENOMEM;
	error = alloc_chrdev_region(&async_n_first, 0, async_n_devices, "async_n");
	if (error)
		goto free;
	error = class_register(&async_n_class);
	if (error)
		goto unregister_region;
	error = async_n_add_all();
	if (error)
		goto unregister_class;
	return 0;

unregister_class:
	class_unregister(&async_n_class);
unregister_region:
	unregister_chrdev_region(async_n_first, async_n_devices);
free:
	kfree(async_n_all);
	return error;
}

static void __exit async_n_exit(void)
{
	async_n_remove_all();
	class_unregister(&async_n_class);
	unregister_chrdev_region(async_n_first, async_n_devices);
	kfree(async_n_all);
}

module_init(async_n_init);
module_exit(async_n_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A buffer whose readers are told by a signal when it is written");
