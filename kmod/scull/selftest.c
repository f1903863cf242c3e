// SPDX-License-Identifier: GPL-2.0
/*
 * selftest.c - what one process sees of scull's devices. Wants the module with
 * its default devices, any locking.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include "scull.h"
#include "selftest.h"

#define PAGE 4096

static int opened(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	check(fd >= 0);
	return fd;
}

/* Empty, and as the module's parameters say. */
static void reset(const char *path)
{
	int fd = opened(path, O_WRONLY);

	check(ioctl(fd, SCULL_IOC_RESET_LAYOUT) == 0);
	close(fd);
}

static long allocated(const char *name)
{
	char path[100], text[40] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/scull/%s/%s", name, "allocated");
	fd = opened(path, O_RDONLY);
	check(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atol(text);
}

static int laid_out(const char *path, __u32 quantum, __u32 qset)
{
	struct scull_layout layout = { quantum, qset };
	int fd = opened(path, O_WRONLY);

	check(ioctl(fd, SCULL_IOC_SET_LAYOUT, &layout) == 0);
	close(fd);
	return opened(path, O_RDWR);
}

/* Two pages, of which the second cannot be touched. */
static char *torn_memory(void)
{
	char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	check(memory != MAP_FAILED);
	check(mprotect(memory + PAGE, PAGE, PROT_NONE) == 0);
	return memory;
}

SELFTEST(there_are_four_devices_and_four_restricted_ones)
{
	static const char * const names[] = { "scull0", "scull1", "scull2", "scull3",
					      "scullsingle", "sculluid", "scullwuid", "scullpriv" };
	char path[100];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/dev/%s", names[i]);
		check(access(path, R_OK | W_OK) == 0);
	}
}

SELFTEST(a_read_returns_what_was_written_across_quanta_and_sets)
{
	int fd = laid_out("/dev/scull0", 7, 3);
	unsigned char out[1000], in[1000];
	unsigned int i;

	for (i = 0; i < sizeof(out); i++)
		out[i] = (unsigned char)(i * 31 + i / 256);
	check(write(fd, out, sizeof(out)) == sizeof(out));
	check(lseek(fd, 0, SEEK_SET) == 0);
	check(read(fd, in, sizeof(in)) == sizeof(in));
	check(memcmp(in, out, sizeof(in)) == 0);
	check(pread(fd, in, 50, 13) == 50);
	check(memcmp(in, out + 13, 50) == 0);
	close(fd);
	reset("/dev/scull0");
}

SELFTEST(reads_end_at_the_end)
{
	int fd = laid_out("/dev/scull0", 4000, 1000);
	char text[20];

	check(write(fd, "hello", 5) == 5);
	check(read(fd, text, sizeof(text)) == 0);
	check(pread(fd, text, sizeof(text), 3) == 2);
	check(pread(fd, text, sizeof(text), 5) == 0);
	check(pread(fd, text, sizeof(text), 1000000000000) == 0);
	check(pread(fd, text, 0, 0) == 0);
	close(fd);
	reset("/dev/scull0");
}

SELFTEST(devices_have_a_memory_each)
{
	int zero = laid_out("/dev/scull0", 4000, 1000), one = laid_out("/dev/scull1", 4000, 1000);
	char text[4] = "";

	check(write(zero, "a", 1) == 1);
	check(write(one, "b", 1) == 1);
	check(pread(zero, text, 4, 0) == 1 && text[0] == 'a');
	check(pread(one, text, 4, 0) == 1 && text[0] == 'b');
	close(zero);
	close(one);
	reset("/dev/scull0");
	reset("/dev/scull1");
}

SELFTEST(only_an_open_for_writing_alone_truncates)
{
	int fd = laid_out("/dev/scull0", 4000, 1000);

	check(write(fd, "hello", 5) == 5);
	close(opened("/dev/scull0", O_RDONLY));
	close(opened("/dev/scull0", O_RDWR));
	check(lseek(fd, 0, SEEK_END) == 5);
	close(opened("/dev/scull0", O_WRONLY));
	check(lseek(fd, 0, SEEK_END) == 0);
	check(allocated("scull0") == 0);
	close(fd);
}

SELFTEST(seeks_count_from_the_start_the_position_and_the_end)
{
	int fd = laid_out("/dev/scull0", 4000, 1000);

	check(write(fd, "0123456789", 10) == 10);
	check(lseek(fd, 4, SEEK_SET) == 4);
	check(lseek(fd, 2, SEEK_CUR) == 6);
	check(lseek(fd, -3, SEEK_END) == 7);
	check(lseek(fd, 100, SEEK_END) == 110);
	check_error(lseek(fd, -11, SEEK_END), EINVAL);
	check_error(lseek(fd, -1, SEEK_SET), EINVAL);
	check_error(lseek(fd, 0, 77), EINVAL);
	check(lseek(fd, 0, SEEK_CUR) == 110);
	close(fd);
	reset("/dev/scull0");
}

SELFTEST(what_was_never_written_reads_as_zeros)
{
	int fd = laid_out("/dev/scull0", 100, 10);
	char in[300], zeros[300] = "";

	check(pwrite(fd, "x", 1, 250) == 1);
	memset(in, 'y', sizeof(in));
	check(pread(fd, in, sizeof(in), 0) == 251);
	check(memcmp(in, zeros, 250) == 0 && in[250] == 'x');
	close(fd);
	reset("/dev/scull0");
}

SELFTEST(a_write_far_out_costs_one_quantum)
{
	int fd = laid_out("/dev/scull0", 4000, 1000);
	const off_t far = (off_t)1 << 50;
	char in[3] = "";

	check(pwrite(fd, "far", 3, far) == 3);
	check(lseek(fd, 0, SEEK_END) == far + 3);
	check(allocated("scull0") < 16 * 1024);
	check(pread(fd, in, 3, far) == 3 && memcmp(in, "far", 3) == 0);
	check(pread(fd, in, 3, far / 2) == 3 && memcmp(in, "\0\0\0", 3) == 0);
	/* The last byte that there can be. */
	check(pwrite(fd, "!", 1, LLONG_MAX - 1) == 1);
	check(pread(fd, in, 1, LLONG_MAX - 1) == 1 && in[0] == '!');
	check(lseek(fd, 0, SEEK_END) == LLONG_MAX);
	check(pwrite(fd, "", 1, LLONG_MAX) == -1);
	close(fd);
	reset("/dev/scull0");
	check(allocated("scull0") == 0);
}

SELFTEST(an_append_writes_at_the_end)
{
	int fd = laid_out("/dev/scull0", 4000, 1000);
	int appending = opened("/dev/scull0", O_RDWR | O_APPEND);
	char in[10] = "";

	check(write(fd, "one", 3) == 3);
	check(write(appending, "two", 3) == 3);
	check(write(appending, "!", 1) == 1);
	check(pread(fd, in, 10, 0) == 7 && memcmp(in, "onetwo!", 7) == 0);
	close(fd);
	close(appending);
	reset("/dev/scull0");
}

SELFTEST(a_vector_is_written_and_read_as_one)
{
	int fd = laid_out("/dev/scull0", 3, 2);
	char a[4] = "", b[8] = "";
	struct iovec out[] = { { "hello ", 6 }, { "world", 5 } };
	struct iovec in[] = { { a, 4 }, { b, 7 } };

	check(writev(fd, out, 2) == 11);
	check(preadv(fd, in, 2, 0) == 11);
	check(memcmp(a, "hell", 4) == 0 && memcmp(b, "o world", 7) == 0);
	close(fd);
	reset("/dev/scull0");
}

SELFTEST(a_layout_is_what_was_set)
{
	int fd = laid_out("/dev/scull0", SCULL_QUANTUM_MAX, 2);
	struct scull_layout layout;
	char *block = malloc(SCULL_QUANTUM_MAX);

	check(block);
	memset(block, 'z', SCULL_QUANTUM_MAX);
	check(ioctl(fd, SCULL_IOC_GET_LAYOUT, &layout) == 0);
	check(layout.quantum == SCULL_QUANTUM_MAX && layout.qset == 2);
	check(write(fd, "x", 1) == 1);
	check(allocated("scull0") >= SCULL_QUANTUM_MAX);
	check(allocated("scull0") < SCULL_QUANTUM_MAX + 1000);
	check(write(fd, block, SCULL_QUANTUM_MAX) == SCULL_QUANTUM_MAX);
	check(allocated("scull0") < 2 * SCULL_QUANTUM_MAX + 1000);
	close(fd);
	fd = laid_out("/dev/scull0", 1, SCULL_QSET_MAX);
	check(write(fd, block, 100) == 100);
	check(pread(fd, block, 200, 0) == 100 && block[99] == 'z');
	close(fd);
	reset("/dev/scull0");
	fd = opened("/dev/scull0", O_RDONLY);
	check(ioctl(fd, SCULL_IOC_GET_LAYOUT, &layout) == 0);
	check(layout.quantum == 4000 && layout.qset == 1000);
	close(fd);
}

SELFTEST(a_layout_out_of_range_is_refused)
{
	static const struct scull_layout refused[] = {
		{ 0, 1000 }, { 4000, 0 }, { UINT32_MAX, 1000 }, { 4000, UINT32_MAX },
		{ SCULL_QUANTUM_MAX + 1, 1 }, { 1, SCULL_QSET_MAX + 1 }, { 1U << 31, 2 },
	};
	int fd = laid_out("/dev/scull0", 4000, 1000);
	struct scull_layout layout;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(refused); i++)
		check_error(ioctl(fd, SCULL_IOC_SET_LAYOUT, &refused[i]), EINVAL);
	check(ioctl(fd, SCULL_IOC_GET_LAYOUT, &layout) == 0);
	check(layout.quantum == 4000 && layout.qset == 1000);
	close(fd);
}

SELFTEST(the_layout_of_data_does_not_change)
{
	int fd = laid_out("/dev/scull0", 4000, 1000), reading = opened("/dev/scull0", O_RDONLY);
	struct scull_layout layout = { 10, 10 };

	check(write(fd, "x", 1) == 1);
	check_error(ioctl(fd, SCULL_IOC_SET_LAYOUT, &layout), EBUSY);
	check_error(ioctl(fd, SCULL_IOC_RESET_LAYOUT), EBUSY);
	check_error(ioctl(reading, SCULL_IOC_SET_LAYOUT, &layout), EBADF);
	check_error(ioctl(reading, SCULL_IOC_RESET_LAYOUT), EBADF);
	close(opened("/dev/scull0", O_WRONLY));
	check(ioctl(fd, SCULL_IOC_SET_LAYOUT, &layout) == 0);
	close(fd);
	close(reading);
	reset("/dev/scull0");
}

SELFTEST(unknown_commands_and_bad_pointers_are_refused)
{
	int fd = laid_out("/dev/scull0", 4000, 1000);
	struct { struct scull_layout layout; __u32 more; } larger = { { 1, 1 }, 0 };

	check_error(ioctl(fd, _IO('k', 0)), ENOTTY);
	check_error(ioctl(fd, _IOW('k', 0xc1, larger), &larger), ENOTTY);
	check_error(ioctl(fd, _IO('k', 0xc3)), ENOTTY);
	check_error(ioctl(fd, SCULL_IOC_GET_LAYOUT, NULL), EFAULT);
	check_error(ioctl(fd, SCULL_IOC_SET_LAYOUT, (void *)-1L), EFAULT);
	close(fd);
}

SELFTEST(a_write_that_cannot_be_copied_keeps_what_came_before)
{
	int fd = laid_out("/dev/scull0", 4000, 1000);
	char *memory = torn_memory();
	char in[300];

	memset(memory, 'a', PAGE);
	check(pwrite(fd, memory, 300, 0) == 300);
	memset(memory, 'b', PAGE);
	check_error(pwrite(fd, memory + PAGE, 100, 0), EFAULT);
	check(pwrite(fd, memory + PAGE - 10, 100, 0) == 10);
	check(pread(fd, in, sizeof(in), 0) == 300);
	check(in[0] == 'b' && in[9] == 'b' && in[10] == 'a' && in[99] == 'a' && in[299] == 'a');
	check_error(pwrite(fd, memory + PAGE, 100, 100000), EFAULT);
	check(lseek(fd, 0, SEEK_END) == 300);
	close(fd);
	reset("/dev/scull0");
	check(allocated("scull0") == 0);
}

SELFTEST(a_read_that_cannot_be_copied_gives_the_lock_back)
{
	int fd = laid_out("/dev/scull0", 100, 10);
	char *memory = torn_memory();
	char in[4];

	memset(memory, 'a', PAGE);
	check(pwrite(fd, memory, 1000, 0) == 1000);
	check_error(pread(fd, memory + PAGE, 1000, 0), EFAULT);
	check(pread(fd, memory + PAGE - 10, 1000, 0) == 10);
	/* From a hole as well. */
	check(pwrite(fd, "x", 1, 5000) == 1);
	check_error(pread(fd, memory + PAGE, 1000, 2000), EFAULT);
	check(pread(fd, in, 4, 0) == 4);
	check(pwrite(fd, "y", 1, 0) == 1);
	close(fd);
	reset("/dev/scull0");
}

SELFTEST(scullsingle_opens_once)
{
	int fd = opened("/dev/scullsingle", O_RDWR), copy;

	check_error(open("/dev/scullsingle", O_RDONLY), EBUSY);
	copy = dup(fd);
	close(fd);
	check_error(open("/dev/scullsingle", O_RDONLY), EBUSY);
	close(copy);
	close(opened("/dev/scullsingle", O_RDONLY));
}

SELFTEST(an_open_that_is_refused_truncates_nothing)
{
	int fd = opened("/dev/scullsingle", O_RDWR);

	check(write(fd, "mine", 4) == 4);
	check_error(open("/dev/scullsingle", O_WRONLY), EBUSY);
	check(lseek(fd, 0, SEEK_END) == 4);
	close(fd);
	reset("/dev/scullsingle");
}

SELFTEST(scullpriv_needs_a_terminal)
{
	check(setsid() > 0);
	check_error(open("/dev/scullpriv", O_RDWR), ENXIO);
}
