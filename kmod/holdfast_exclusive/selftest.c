// SPDX-License-Identifier: GPL-2.0
/*
 * selftest.c - what a driver with a struct hf_exclusive owes its users, asked of
 * /dev/hf_checksum0, or of the device that HF_DEVICE names.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include "holdfast_exclusive.h"
#include "selftest.h"

static int opened(int flags)
{
	const char *path = getenv("HF_DEVICE");
	int fd = open(path ? path : "/dev/hf_checksum0", O_RDWR | O_CLOEXEC | flags);

	check(fd >= 0);
	return fd;
}

static struct hf_exclusive_owner owner_of(int fd)
{
	struct hf_exclusive_owner owner = { .flags = 0 };

	check(ioctl(fd, HF_IOC_OWNER, &owner) == 0);
	return owner;
}

/* A process that owns the device, or dies at once. */
static pid_t owner(int fd)
{
	int ready[2];
	char byte;
	pid_t child;

	check(pipe(ready) == 0);
	child = fork();
	check(child >= 0);
	if (child == 0) {
		if (ioctl(fd, HF_IOC_LOCK, 0) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	check(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
	return child;
}

static void end(pid_t child)
{
	check(kill(child, SIGKILL) == 0);
	check(waitpid(child, NULL, 0) == child);
}

SELFTEST(lock_and_unlock)
{
	int fd = opened(0);

	check(owner_of(fd).state == HF_EXCLUSIVE_FREE);
	check(ioctl(fd, HF_IOC_LOCK, 0) == 0);
	check(owner_of(fd).pid == getpid());
	check_error(ioctl(fd, HF_IOC_LOCK, 0), EDEADLK);
	check(ioctl(fd, HF_IOC_UNLOCK, 0) == 0);
	check_error(ioctl(fd, HF_IOC_UNLOCK, 0), EPERM);
}

SELFTEST(another_owner_keeps_out)
{
	int fd = opened(O_NONBLOCK);
	struct hf_exclusive_wait now = { .deadline_ns = 0 };
	pid_t other = owner(fd);

	check_error(ioctl(fd, HF_IOC_LOCK, 0), EAGAIN);
	check_error(ioctl(fd, HF_IOC_TRYLOCK, 0), EAGAIN);
	check_error(ioctl(fd, HF_IOC_UNLOCK, 0), EPERM);
	check(fcntl(fd, F_SETFL, 0) == 0);
	check_error(ioctl(fd, HF_IOC_LOCK_UNTIL, &now), ETIMEDOUT);
	end(other);
	check(ioctl(fd, HF_IOC_TRYLOCK, 0) == 0);
}

SELFTEST(each_owner_has_a_larger_token)
{
	int fd = opened(0);
	uint64_t before = owner_of(fd).token;

	check(ioctl(fd, HF_IOC_LOCK, 0) == 0);
	check(owner_of(fd).token == before + 1);
	check(ioctl(fd, HF_IOC_UNLOCK, 0) == 0);
	check(ioctl(fd, HF_IOC_LOCK, 0) == 0);
	check(owner_of(fd).token == before + 2);
}

SELFTEST(closing_frees_nothing)
{
	int fd = opened(0);

	check(ioctl(fd, HF_IOC_LOCK, 0) == 0);
	close(dup(fd));
	close(fd);
	fd = opened(0);
	check(ioctl(fd, HF_IOC_UNLOCK, 0) == 0);
}

static void *unlock(void *fd)
{
	return ioctl(*(int *)fd, HF_IOC_UNLOCK, 0) ? fd : NULL;
}

SELFTEST(another_thread_unlocks)
{
	int fd = opened(0);
	pthread_t thread;
	void *failed;

	check(ioctl(fd, HF_IOC_LOCK, 0) == 0);
	check(pthread_create(&thread, NULL, unlock, &fd) == 0);
	check(pthread_join(thread, &failed) == 0 && !failed);
}

SELFTEST(poll_says_when_it_is_free)
{
	struct pollfd fd = { .fd = opened(0), .events = POLLOUT };
	pid_t other = owner(fd.fd);

	check(poll(&fd, 1, 0) == 0);
	check(kill(other, SIGKILL) == 0);
	check(poll(&fd, 1, -1) == 1 && fd.revents == POLLOUT);
	check(waitpid(other, NULL, 0) == other);
}

SELFTEST(what_is_unknown_is_refused)
{
	int fd = opened(0);
	struct hf_exclusive_owner owner = { .flags = 1 };
	struct hf_exclusive_wait wait = { .reserved = 1 };

	check_error(ioctl(fd, HF_IOC_LOCK, 1), EINVAL);
	check_error(ioctl(fd, HF_IOC_OWNER, &owner), EINVAL);
	check_error(ioctl(fd, HF_IOC_LOCK_UNTIL, &wait), EINVAL);
	check_error(ioctl(fd, _IO(HF_EXCLUSIVE_IOC, 0x0f), 0), ENOTTY);
}
