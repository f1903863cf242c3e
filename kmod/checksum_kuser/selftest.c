// SPDX-License-Identifier: GPL-2.0
/*
 * selftest.c - users inside the kernel in competition with a program. Wants
 * debugfs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include "holdfast_checksum.h"
#include "selftest.h"

static int tell(const char *user, const char *words)
{
	char path[64];
	int fd, ret;

	snprintf(path, sizeof(path), "/sys/kernel/debug/checksum_kuser/%s", user);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	check(fd >= 0);
	ret = write(fd, words, strlen(words)) < 0 ? -1 : 0;
	close(fd);
	return ret;
}

static int opened(void)
{
	int fd = open("/dev/hf_checksum0", O_RDWR | O_CLOEXEC);

	check(fd >= 0);
	return fd;
}

SELFTEST(a_user_in_the_kernel_keeps_programs_out)
{
	int fd = opened();

	check(tell("a", "lock") == 0);
	check_error(ioctl(fd, HF_IOC_TRYLOCK, 0), EAGAIN);
	check_error(ioctl(fd, HF_IOC_UNLOCK, 0), EPERM);
	check_error(tell("a", "lock"), EDEADLK);
	check_error(tell("b", "unlock"), EPERM);
	check(tell("a", "process 123456789") == 0);
	check(tell("a", "unlock") == 0);
	check_error(tell("a", "process 123456789"), EPERM);
}

SELFTEST(a_program_keeps_users_in_the_kernel_out)
{
	int fd = opened();

	check(ioctl(fd, HF_IOC_LOCK, 0) == 0);
	check_error(tell("a", "trylock"), EAGAIN);
	check_error(tell("a", "lock_timeout 5"), ETIMEDOUT);
	check(ioctl(fd, HF_IOC_UNLOCK, 0) == 0);
	check(tell("a", "compete 100") == 0);
}

SELFTEST(nonsense_is_refused)
{
	check_error(tell("a", "dance"), EINVAL);
	check_error(tell("a", "compete"), EINVAL);
	check_error(tell("a", "lock_timeout soon"), EINVAL);
}
