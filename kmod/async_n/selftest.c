// SPDX-License-Identifier: GPL-2.0
/*
 * selftest.c - what one process sees of /dev/async_n0. Wants the module with a
 * buffer of 256 bytes, and nobody else at the device.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <time.h>
#include "selftest.h"

#define DEVICE "/dev/async_n0"
#define SIZE 256

static int opened(int flags)
{
	int fd = open(DEVICE, flags | O_CLOEXEC);

	check(fd >= 0);
	return fd;
}

static int attribute(const char *name)
{
	char path[100], text[40] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/async_n/async_n0/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	check(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atoi(text);
}

static void say(int fd, const char *text)
{
	check(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static short polled(int fd)
{
	struct pollfd entry = { .fd = fd, .events = POLLIN | POLLOUT };

	check(poll(&entry, 1, 0) >= 0);
	return entry.revents;
}

static sigset_t only(int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	check(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	return set;
}

static void ask_for_signals(int fd)
{
	check(fcntl(fd, F_SETOWN, getpid()) == 0);
	check(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC) == 0);
}

/* The signal is sent before write() returns: what is not there now does not come. */
static int taken(const sigset_t *set, siginfo_t *info)
{
	const struct timespec now = { 0, 0 };

	return sigtimedwait(set, info, &now);
}

SELFTEST(the_buffer_is_there_while_anybody_has_it_open)
{
	int reader, writer, both;

	check(attribute("allocated") == 0);
	check(attribute("readers") == 0 && attribute("writers") == 0);
	reader = opened(O_RDONLY);
	check(attribute("allocated") >= SIZE);
	check(attribute("readers") == 1 && attribute("writers") == 0);
	writer = opened(O_WRONLY);
	both = opened(O_RDWR);
	check(attribute("readers") == 2 && attribute("writers") == 2);
	close(both);
	close(reader);
	check(attribute("allocated") >= SIZE);
	check(attribute("readers") == 0 && attribute("writers") == 1);
	close(writer);
	check(attribute("allocated") == 0 && attribute("writers") == 0);
}

SELFTEST(the_message_goes_with_the_buffer)
{
	int fd = opened(O_RDWR);
	char text[SIZE];

	say(fd, "old");
	close(fd);
	fd = opened(O_RDONLY);
	check(read(fd, text, sizeof(text)) == 0);
}

SELFTEST(a_read_returns_what_was_written)
{
	int fd = opened(O_RDWR);
	char text[2 * SIZE];

	check(read(fd, text, sizeof(text)) == 0);
	say(fd, "hey, how are you?");
	check(read(fd, text, sizeof(text)) == 17 && memcmp(text, "hey, how are you?", 17) == 0);
	/* It stays there. */
	check(read(fd, text, 3) == 3 && memcmp(text, "hey", 3) == 0);
	check(read(fd, text, sizeof(text)) == 17);
}

SELFTEST(a_write_replaces_the_whole_message)
{
	int fd = opened(O_RDWR);
	char text[SIZE];

	say(fd, "a long message");
	say(fd, "short");
	check(read(fd, text, sizeof(text)) == 5 && memcmp(text, "short", 5) == 0);
	check(write(fd, "", 0) == 0);
	check(read(fd, text, sizeof(text)) == 0);
}

SELFTEST(what_is_longer_than_the_buffer_is_cut)
{
	int fd = opened(O_RDWR);
	char out[SIZE + 100], in[SIZE + 100];

	memset(out, 'o', sizeof(out));
	check(write(fd, out, sizeof(out)) == SIZE);
	check(read(fd, in, sizeof(in)) == SIZE && memcmp(in, out, SIZE) == 0);
	check(write(fd, out, SIZE) == SIZE);
	check(read(fd, in, sizeof(in)) == SIZE);
}

SELFTEST(there_is_no_seeking)
{
	int fd = opened(O_RDWR);
	char text[4];

	check_error(lseek(fd, 0, SEEK_SET), ESPIPE);
	check_error(pread(fd, text, 4, 0), ESPIPE);
	check_error(pwrite(fd, text, 4, 0), ESPIPE);
}

SELFTEST(a_reader_that_asked_gets_sigio)
{
	int reader = opened(O_RDONLY), writer = opened(O_WRONLY);
	sigset_t set = only(SIGIO);
	siginfo_t info;

	say(writer, "before it asked");
	check(taken(&set, &info) == -1);
	ask_for_signals(reader);
	say(writer, "hello");
	check(taken(&set, &info) == SIGIO);
	check(taken(&set, &info) == -1);
}

SELFTEST(with_a_signal_of_its_choice_it_learns_the_descriptor_and_poll_in)
{
	int reader = opened(O_RDONLY), writer = opened(O_WRONLY);
	sigset_t set = only(SIGRTMIN);
	siginfo_t info;

	check(fcntl(reader, F_SETSIG, SIGRTMIN) == 0);
	ask_for_signals(reader);
	say(writer, "one");
	say(writer, "two");
	check(taken(&set, &info) == SIGRTMIN);
	check(info.si_code == POLL_IN && info.si_fd == reader && (info.si_band & POLLIN));
	/* Real-time signals queue: one for each message. */
	check(taken(&set, &info) == SIGRTMIN);
	check(taken(&set, &info) == -1);
}

SELFTEST(a_writer_gets_no_signal)
{
	int writer = opened(O_WRONLY);

	check_error(fcntl(writer, F_SETFL, O_ASYNC), EINVAL);
}

SELFTEST(who_asks_no_longer_or_closes_gets_none)
{
	int reader = opened(O_RDONLY), other = opened(O_RDONLY), writer = opened(O_WRONLY);
	sigset_t set = only(SIGIO);
	siginfo_t info;

	ask_for_signals(reader);
	check(fcntl(reader, F_SETFL, 0) == 0);
	say(writer, "a");
	check(taken(&set, &info) == -1);
	ask_for_signals(other);
	close(other);
	say(writer, "b");
	check(taken(&set, &info) == -1);
}

SELFTEST(a_write_that_cannot_be_copied_changes_and_tells_nothing)
{
	int reader = opened(O_RDONLY), writer = opened(O_WRONLY);
	char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigset_t set = only(SIGIO);
	siginfo_t info;
	char text[SIZE];

	check(memory != MAP_FAILED && mprotect(memory + 4096, 4096, PROT_NONE) == 0);
	say(writer, "before");
	check(read(reader, text, sizeof(text)) == 6);
	ask_for_signals(reader);
	check_error(write(writer, memory + 4096, 10), EFAULT);
	check_error(write(writer, memory + 4096 - 5, 10), EFAULT);
	check(taken(&set, &info) == -1);
	check(polled(reader) == 0);
	check(read(reader, text, sizeof(text)) == 6 && memcmp(text, "before", 6) == 0);
	/* The lock is free. */
	say(writer, "after");
	check(taken(&set, &info) == SIGIO);
}

SELFTEST(a_read_that_cannot_be_copied_leaves_the_message_unread)
{
	int reader = opened(O_RDONLY), writer = opened(O_WRONLY);

	say(writer, "hello");
	check_error(read(reader, (void *)-1L, 10), EFAULT);
	check(polled(reader) == POLLIN);
	say(writer, "again");
}

SELFTEST(poll_tells_of_a_message_that_this_open_has_not_read)
{
	int one = opened(O_RDONLY), two = opened(O_RDONLY), writer = opened(O_WRONLY);
	char text[SIZE];

	check(polled(one) == 0 && polled(two) == 0 && polled(writer) == POLLOUT);
	say(writer, "hello");
	check(polled(one) == POLLIN && polled(two) == POLLIN && polled(writer) == POLLOUT);
	check(read(one, text, sizeof(text)) == 5);
	check(polled(one) == 0 && polled(two) == POLLIN);
	/* Somebody who comes now has not read it either. */
	check(polled(opened(O_RDWR)) == (POLLIN | POLLOUT));
}

SELFTEST(select_tells_the_same)
{
	int reader = opened(O_RDONLY), writer = opened(O_WRONLY);
	struct timeval now = { 0, 0 }, long_time = { 30, 0 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(reader, &set);
	check(select(reader + 1, &set, NULL, NULL, &now) == 0);
	if (fork() == 0) {
		say(writer, "from another process");
		_exit(0);
	}
	FD_SET(reader, &set);
	check(select(reader + 1, &set, NULL, NULL, &long_time) == 1);
}

SELFTEST(epoll_tells_of_each_message_once_when_asked_for_edges)
{
	int reader = opened(O_RDONLY), writer = opened(O_WRONLY);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	check(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, reader, &event) == 0);
	check(epoll_wait(epoll, &event, 1, 0) == 0);
	say(writer, "one");
	check(epoll_wait(epoll, &event, 1, 30000) == 1);
	check(epoll_wait(epoll, &event, 1, 0) == 0);
	say(writer, "two");
	check(epoll_wait(epoll, &event, 1, 30000) == 1);
}
