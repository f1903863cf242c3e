// SPDX-License-Identifier: GPL-2.0-only
/*
 * checksum_kuser - the checksum device used from inside the kernel, in competition
 * with programs. It does what is written to debugfs, one word a write; the write
 * fails as the operation does:
 *
 *  lock, lock_interruptible, lock_killable, trylock, unlock
 *  lock_timeout MILLISECONDS
 *  process TEXT		its sums can be read from the same file afterwards
 *  compete ROUNDS	lock, process, unlock, so often
 *
 * In /sys/kernel/debug/checksum_kuser/ are several files a, b, c, each a caller of
 * its own.
 */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "hf_checksum.h"
#include "hf_exclusive.h"

static char *device = "hf_checksum0";
module_param(device, charp, 0444);
MODULE_PARM_DESC(device, "the device to use (hf_checksum0)");

struct kuser {
	struct hf_exclusive_caller caller;
	struct mutex mutex;		/* guards sums */
	struct hf_checksum_sums sums;
};

static struct kuser users[] = {
	{ .caller.name = "kuser a" },
	{ .caller.name = "kuser b" },
	{ .caller.name = "kuser c" },
};

static struct hf_checksum *checksum;
static struct dentry *folder;

static int process(struct kuser *user, const char *text)
{
	struct hf_checksum_sums sums;
	int ret = hf_checksum_process(checksum, &user->caller, text, strlen(text), &sums);

	if (ret)
		return ret;
	mutex_lock(&user->mutex);
	user->sums = sums;
	mutex_unlock(&user->mutex);
	return 0;
}

static int compete(struct kuser *user, unsigned int rounds)
{
	struct hf_exclusive *x = hf_checksum_exclusive(checksum);
	int ret = 0;

	while (!ret && rounds--) {
		ret = hf_exclusive_lock_interruptible(x, &user->caller);
		if (ret)
			break;
		ret = process(user, "compete");
		hf_exclusive_unlock(x, &user->caller);
	}
	return ret;
}

static int obey(struct kuser *user, const char *word, const char *rest)
{
	struct hf_exclusive *x = hf_checksum_exclusive(checksum);
	unsigned int number;

	if (!strcmp(word, "lock"))
		return hf_exclusive_lock(x, &user->caller);
	if (!strcmp(word, "lock_interruptible"))
		return hf_exclusive_lock_interruptible(x, &user->caller);
	if (!strcmp(word, "lock_killable"))
		return hf_exclusive_lock_killable(x, &user->caller);
	if (!strcmp(word, "trylock"))
		return hf_exclusive_trylock(x, &user->caller);
	if (!strcmp(word, "unlock"))
		return hf_exclusive_unlock(x, &user->caller);
	if (!strcmp(word, "process"))
		return process(user, rest ?: "");
	if (!rest || kstrtouint(rest, 10, &number))
		return -EINVAL;
	if (!strcmp(word, "lock_timeout"))
		return hf_exclusive_lock_timeout(x, &user->caller,
						 ktime_add_ms(ktime_get(), number));
	if (!strcmp(word, "compete"))
		return compete(user, number);
	return -EINVAL;
}

static ssize_t user_write(struct file *file, const char __user *data, size_t size, loff_t *offset)
{
	char text[128], *rest;
	int ret;

	if (size >= sizeof(text))
		return -E2BIG;
	if (copy_from_user(text, data, size))
		return -EFAULT;
	text[size] = '\0';
	rest = strim(text);
	strsep(&rest, " ");
	ret = obey(file->private_data, strim(text), rest);
	return ret ?: size;
}

static ssize_t user_read(struct file *file, char __user *data, size_t size, loff_t *offset)
{
	struct kuser *user = file->private_data;
	char text[96];
	int length;

	mutex_lock(&user->mutex);
	length = scnprintf(text, sizeof(text), "%08x %*phN\n", user->sums.crc32c,
			   (int)sizeof(user->sums.sha256), user->sums.sha256);
	mutex_unlock(&user->mutex);
	return simple_read_from_buffer(data, size, offset, text, length);
}

static const struct file_operations user_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = user_read,
	.write = user_write,
	.llseek = default_llseek,
};

static int __init checksum_kuser_init(void)
{
	size_t i;

	checksum = hf_checksum_get(device);
	if (!checksum)
		return -ENODEV;
	folder = debugfs_create_dir(KBUILD_MODNAME, NULL);
	for (i = 0; i < ARRAY_SIZE(users); i++) {
		const char name[] = { 'a' + i, '\0' };

		mutex_init(&users[i].mutex);
		debugfs_create_file(name, 0600, folder, &users[i], &user_fops);
	}
	return 0;
}
module_init(checksum_kuser_init);

static void __exit checksum_kuser_exit(void)
{
	size_t i;

	/* Nobody is in a write any more: each has a file open. */
	debugfs_remove(folder);
	for (i = 0; i < ARRAY_SIZE(users); i++)
		hf_exclusive_unlock(hf_checksum_exclusive(checksum), &users[i].caller);
	hf_checksum_put(checksum);
}
module_exit(checksum_kuser_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("holdfast");
MODULE_DESCRIPTION("Uses the checksum device from inside the kernel");
