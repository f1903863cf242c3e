// SPDX-License-Identifier: GPL-2.0-only
/*
 * checksum - a device that one at a time may use, for the sake of its shape: LOCK,
 * PROCESS as often as one likes, UNLOCK, for programs and for modules. What it
 * processes is a buffer, to its CRC-32C and SHA-256.
 *
 * hf_exclusive says who the owner is. Left to this driver are two things: a mutex,
 * because the owner's threads come in parallel and a PROCESS may outlast an UNLOCK
 * by another of them; and that the device can go (unbind in sysfs) while it is
 * open, locked and in use. The struct then lives on until the last file is closed.
 */
#include <crypto/hash.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#include <holdfast_checksum.h>

#include "hf_checksum.h"
#include "hf_exclusive.h"

#define NAME "hf_checksum"
#define MAX_DEVICES 16
#define CHUNK SZ_16K

struct hf_checksum {
	struct hf_exclusive exclusive;
	struct device dev;
	struct cdev cdev;
	struct mutex mutex;		/* one PROCESS at a time; guards all below */
	struct shash_desc *crc32c;
	struct shash_desc *sha256;
	u8 *chunk;
	u64 processed;
	bool gone;
};

static unsigned int devices = 1;
module_param(devices, uint, 0444);
MODULE_PARM_DESC(devices, "how many devices, 1 to 16 (1)");

static dev_t first;
static struct platform_device *pdevs[MAX_DEVICES];

static int sum(struct hf_checksum *c, struct iov_iter *from, struct hf_checksum_sums *sums)
{
	__le32 crc32c = 0;
	int ret;

	ret = crypto_shash_init(c->crc32c) ?: crypto_shash_init(c->sha256);
	while (!ret && iov_iter_count(from)) {
		size_t size = min_t(size_t, iov_iter_count(from), CHUNK);

		if (fatal_signal_pending(current))
			return -EINTR;
		if (!copy_from_iter_full(c->chunk, size, from))
			return -EFAULT;
		ret = crypto_shash_update(c->crc32c, c->chunk, size) ?:
		      crypto_shash_update(c->sha256, c->chunk, size);
		cond_resched();
	}
	if (!ret)
		ret = crypto_shash_final(c->crc32c, (u8 *)&crc32c) ?:
		      crypto_shash_final(c->sha256, sums->sha256);
	sums->crc32c = le32_to_cpu(crc32c);
	return ret;
}

static int process(struct hf_checksum *c, const struct hf_exclusive_caller *caller,
		   struct iov_iter *from, struct hf_checksum_sums *sums)
{
	int ret;

	/* Strangers need not wait to hear it. */
	if (!hf_exclusive_is_owner(&c->exclusive, caller))
		return READ_ONCE(c->gone) ? -ENODEV : -EPERM;
	if (mutex_lock_interruptible(&c->mutex))
		return -ERESTARTSYS;
	if (c->gone) {
		ret = -ENODEV;
	} else if (!hf_exclusive_is_owner(&c->exclusive, caller)) {
		ret = -EPERM;	/* another thread unlocked meanwhile */
	} else {
		ret = sum(c, from, sums);
		c->processed += !ret;
	}
	mutex_unlock(&c->mutex);
	return ret;
}

static long ioctl_process(struct hf_checksum *c, void __user *arg)
{
	struct hf_checksum_process job;
	struct hf_checksum_sums sums;
	struct iov_iter from;
	int ret;

	if (copy_from_user(&job, arg, sizeof(job)))
		return -EFAULT;
	if (job.flags || job.size > HF_CHECKSUM_MAX)
		return -EINVAL;
	if (job.data != (unsigned long)job.data)
		return -EFAULT;
	iov_iter_ubuf(&from, WRITE, u64_to_user_ptr(job.data), job.size);
	ret = process(c, NULL, &from, &sums);
	if (ret)
		return ret;
	job.crc32c = sums.crc32c;
	memcpy(job.sha256, sums.sha256, sizeof(job.sha256));
	return copy_to_user(arg, &job, sizeof(job)) ? -EFAULT : 0;
}

static int checksum_open(struct inode *inode, struct file *file)
{
	/* The file keeps the cdev, and that the device. */
	file->private_data = container_of(inode->i_cdev, struct hf_checksum, cdev);
	return stream_open(inode, file);
}

static long checksum_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct hf_checksum *c = file->private_data;
	long ret = hf_exclusive_ioctl(&c->exclusive, file, cmd, arg);

	if (ret != -ENOIOCTLCMD)
		return ret;
	return cmd == HF_IOC_PROCESS ? ioctl_process(c, (void __user *)arg) : -ENOTTY;
}

static __poll_t checksum_poll(struct file *file, poll_table *wait)
{
	struct hf_checksum *c = file->private_data;

	return hf_exclusive_poll(&c->exclusive, file, wait);
}

static const struct file_operations checksum_fops = {
	.owner = THIS_MODULE,
	.open = checksum_open,
	.unlocked_ioctl = checksum_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.poll = checksum_poll,
};

static struct hf_checksum *of_dev(struct device *dev)
{
	return container_of(dev, struct hf_checksum, dev);
}

static ssize_t processed_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(of_dev(dev)->processed));
}
static DEVICE_ATTR_RO(processed);

static struct attribute *checksum_attrs[] = {
	&dev_attr_processed.attr,
	NULL
};

static const struct attribute_group checksum_group = {
	.attrs = checksum_attrs,
};

static const struct attribute_group *checksum_groups[] = {
	&checksum_group,
	&hf_exclusive_group,
	NULL
};

static struct class checksum_class = {
	.name = NAME,
	.dev_groups = checksum_groups,
};

static struct shash_desc *algorithm(const char *name)
{
	struct crypto_shash *tfm = crypto_alloc_shash(name, 0, 0);
	struct shash_desc *desc;

	if (IS_ERR(tfm))
		return ERR_CAST(tfm);
	desc = kzalloc(sizeof(*desc) + crypto_shash_descsize(tfm), GFP_KERNEL);
	if (!desc) {
		crypto_free_shash(tfm);
		return ERR_PTR(-ENOMEM);
	}
	desc->tfm = tfm;
	return desc;
}

static void free_algorithm(struct shash_desc *desc)
{
	if (IS_ERR_OR_NULL(desc))
		return;
	crypto_free_shash(desc->tfm);
	kfree_sensitive(desc);
}

static void checksum_release(struct device *dev)
{
	struct hf_checksum *c = of_dev(dev);

	hf_exclusive_destroy(&c->exclusive);
	free_algorithm(c->crc32c);
	free_algorithm(c->sha256);
	kfree(c->chunk);
	mutex_destroy(&c->mutex);
	kfree(c);
}

/* Those who wait are told; a PROCESS that runs is waited for; files stay open. */
static void unplug(void *data)
{
	struct hf_checksum *c = data;

	hf_exclusive_shutdown(&c->exclusive);
	mutex_lock(&c->mutex);
	WRITE_ONCE(c->gone, true);
	mutex_unlock(&c->mutex);
	cdev_device_del(&c->cdev, &c->dev);
	put_device(&c->dev);
}

static int checksum_probe(struct platform_device *pdev)
{
	struct hf_checksum *c = kzalloc(sizeof(*c), GFP_KERNEL);
	int ret;

	if (!c)
		return -ENOMEM;
	hf_exclusive_init(&c->exclusive);
	mutex_init(&c->mutex);
	device_initialize(&c->dev);
	c->dev.class = &checksum_class;
	c->dev.parent = &pdev->dev;
	c->dev.devt = first + pdev->id;
	c->dev.release = checksum_release;
	dev_set_drvdata(&c->dev, &c->exclusive);

	ret = -ENOMEM;
	c->chunk = kmalloc(CHUNK, GFP_KERNEL);
	if (!c->chunk)
		goto fail;
	c->crc32c = algorithm("crc32c");
	c->sha256 = algorithm("sha256");
	ret = PTR_ERR_OR_ZERO(c->crc32c) ?: PTR_ERR_OR_ZERO(c->sha256) ?:
	      dev_set_name(&c->dev, NAME "%d", pdev->id);
	if (ret)
		goto fail;
	cdev_init(&c->cdev, &checksum_fops);
	c->cdev.owner = THIS_MODULE;
	ret = cdev_device_add(&c->cdev, &c->dev);
	if (ret)
		goto fail;
	return devm_add_action_or_reset(&pdev->dev, unplug, c);

fail:
	put_device(&c->dev);
	return ret;
}

static struct platform_driver checksum_driver = {
	.driver.name = NAME,
	.probe = checksum_probe,
};

/**
 * hf_checksum_get - find a device
 * @name: "hf_checksum0"
 *
 * Return: the device, to be given back by hf_checksum_put(), or NULL
 */
struct hf_checksum *hf_checksum_get(const char *name)
{
	struct device *dev = class_find_device_by_name(&checksum_class, name);

	return dev ? of_dev(dev) : NULL;
}
EXPORT_SYMBOL_GPL(hf_checksum_get);

/**
 * hf_checksum_put - give a device back
 * @checksum: which; not locked by who gives it back
 */
void hf_checksum_put(struct hf_checksum *checksum)
{
	if (checksum)
		put_device(&checksum->dev);
}
EXPORT_SYMBOL_GPL(hf_checksum_put);

/**
 * hf_checksum_exclusive - what to lock
 * @checksum: of which device
 */
struct hf_exclusive *hf_checksum_exclusive(struct hf_checksum *checksum)
{
	return &checksum->exclusive;
}
EXPORT_SYMBOL_GPL(hf_checksum_exclusive);

/**
 * hf_checksum_process - PROCESS by a caller in the kernel
 * @checksum: the device
 * @caller: who owns it
 * @data: the buffer
 * @size: its bytes
 * @sums: the result
 *
 * Return: 0, -EPERM when @caller does not own the device, -ENODEV when it is gone,
 * -ERESTARTSYS
 */
int hf_checksum_process(struct hf_checksum *checksum, const struct hf_exclusive_caller *caller,
			const void *data, size_t size, struct hf_checksum_sums *sums)
{
	struct kvec buffer = { .iov_base = (void *)data, .iov_len = size };
	struct iov_iter from;

	iov_iter_kvec(&from, WRITE, &buffer, 1, size);
	return process(checksum, caller, &from, sums);
}
EXPORT_SYMBOL_GPL(hf_checksum_process);

static void remove_devices(void)
{
	while (devices)
		platform_device_unregister(pdevs[--devices]);
}

static int __init checksum_init(void)
{
	unsigned int wanted = clamp(devices, 1u, (unsigned int)MAX_DEVICES);
	int ret;

	devices = 0;
	ret = alloc_chrdev_region(&first, 0, MAX_DEVICES, NAME);
	if (ret)
		return ret;
	ret = class_register(&checksum_class);
	if (ret)
		goto no_class;
	ret = platform_driver_register(&checksum_driver);
	if (ret)
		goto no_driver;
	for (; devices < wanted; devices++) {
		pdevs[devices] = platform_device_register_simple(NAME, devices, NULL, 0);
		if (IS_ERR(pdevs[devices])) {
			ret = PTR_ERR(pdevs[devices]);
			goto no_device;
		}
	}
	return 0;

no_device:
	remove_devices();
	platform_driver_unregister(&checksum_driver);
no_driver:
	class_unregister(&checksum_class);
no_class:
	unregister_chrdev_region(first, MAX_DEVICES);
	return ret;
}
module_init(checksum_init);

static void __exit checksum_exit(void)
{
	remove_devices();
	platform_driver_unregister(&checksum_driver);
	class_unregister(&checksum_class);
	unregister_chrdev_region(first, MAX_DEVICES);
}
module_exit(checksum_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("holdfast");
MODULE_DESCRIPTION("CRC-32C and SHA-256 for one owner at a time");
