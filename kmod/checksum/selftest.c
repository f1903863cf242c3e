// SPDX-License-Identifier: GPL-2.0
/*
 * selftest.c - PROCESS of /dev/hf_checksum0; LOCK and UNLOCK are
 * holdfast_exclusive's.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "holdfast_checksum.h"
#include "selftest.h"

static int locked(void)
{
	int fd = open("/dev/hf_checksum0", O_RDWR | O_CLOEXEC);

	check(fd >= 0);
	check(ioctl(fd, HF_IOC_LOCK, 0) == 0);
	return fd;
}

static struct hf_checksum_process job_of(const void *data, size_t size)
{
	return (struct hf_checksum_process){ .data = (uintptr_t)data, .size = size };
}

SELFTEST(sums_are_right)
{
	static const unsigned char sha256[32] = {
		0x15, 0xe2, 0xb0, 0xd3, 0xc3, 0x38, 0x91, 0xeb, 0xb0, 0xf1, 0xef,
		0x60, 0x9e, 0xc4, 0x19, 0x42, 0x0c, 0x20, 0xe3, 0x20, 0xce, 0x94,
		0xc6, 0x5f, 0xbc, 0x8c, 0x33, 0x12, 0x44, 0x8e, 0xb2, 0x25
	};
	struct hf_checksum_process job = job_of("123456789", 9);

	check(ioctl(locked(), HF_IOC_PROCESS, &job) == 0);
	check(job.crc32c == 0xe3069283);
	check(!memcmp(job.sha256, sha256, sizeof(sha256)));
}

SELFTEST(nobody_processes_without_lock)
{
	struct hf_checksum_process job = job_of("", 0);
	int fd = locked();

	check(ioctl(fd, HF_IOC_PROCESS, &job) == 0);
	check(ioctl(fd, HF_IOC_UNLOCK, 0) == 0);
	check_error(ioctl(fd, HF_IOC_PROCESS, &job), EPERM);
}

SELFTEST(memory_that_is_not_there_is_a_fault)
{
	char *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct hf_checksum_process job = job_of(two, 8192);
	int fd = locked();

	check(two != MAP_FAILED);
	check(ioctl(fd, HF_IOC_PROCESS, &job) == 0);
	check(munmap(two + 4096, 4096) == 0);
	check_error(ioctl(fd, HF_IOC_PROCESS, &job), EFAULT);
	check_error(ioctl(fd, HF_IOC_PROCESS, two + 4096 - 8), EFAULT);
	job.size = 4096;
	check(ioctl(fd, HF_IOC_PROCESS, &job) == 0);
}

SELFTEST(flags_and_sizes_are_checked)
{
	struct hf_checksum_process job = job_of("", 0);
	int fd = locked();

	job.flags = 1;
	check_error(ioctl(fd, HF_IOC_PROCESS, &job), EINVAL);
	job = job_of("", HF_CHECKSUM_MAX + 1);
	check_error(ioctl(fd, HF_IOC_PROCESS, &job), EINVAL);
}
