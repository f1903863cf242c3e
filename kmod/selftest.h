/* SPDX-License-Identifier: GPL-2.0 */
/*
 * selftest.h - a module's own test: a program that needs nothing but the
 * module, and says how it went in the TAP that the kernel's selftests speak.
 *
 *	SELFTEST(a_read_returns_what_was_written)
 *	{
 *		int fd = open("/dev/scull0", O_RDWR);
 *
 *		check(fd >= 0);
 *		...
 *	}
 *
 * Each runs in a process of its own, so that it leaves nothing open, and ends
 * at its first check that fails. The status is kselftest's: 0, 1 when one
 * failed, 4 when all were skipped.
 */
#ifndef SELFTEST_H
#define SELFTEST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SELFTEST_MAX 64
#define SELFTEST_SECONDS 60
#define SELFTEST_SKIPPED 4

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

struct selftest {
	const char *name;
	void (*run)(void);
};

static struct selftest selftests[SELFTEST_MAX];
static int selftest_count;

#define SELFTEST(title)							\
	static void title(void);					\
	__attribute__((constructor)) static void register_##title(void)	\
	{								\
		if (selftest_count == SELFTEST_MAX)			\
			abort();					\
		selftests[selftest_count].name = #title;		\
		selftests[selftest_count++].run = title;		\
	}								\
	static void title(void)

#define check(condition)						\
	do {								\
		if (!(condition)) {					\
			printf("# line %d: %s (errno: %s)\n", __LINE__,	\
			       #condition, strerror(errno));		\
			fflush(stdout);					\
			_exit(1);					\
		}							\
	} while (0)

/* The call fails, and with this errno. */
#define check_error(call, number)					\
	do {								\
		errno = 0;						\
		check((call) == -1 && errno == (number));		\
	} while (0)

static inline void skip(const char *reason)
{
	printf("# skipped: %s\n", reason);
	fflush(stdout);
	_exit(SELFTEST_SKIPPED);
}

static int selftest_run(const struct selftest *test)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(SELFTEST_SECONDS);
		test->run();
		fflush(stdout);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 1;
	if (WIFSIGNALED(status))
		printf("# ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void)
{
	int i, passed = 0, failed = 0, skipped = 0;

	printf("TAP version 13\n1..%d\n", selftest_count);
	for (i = 0; i < selftest_count; i++) {
		int status = selftest_run(&selftests[i]);

		passed += status == 0;
		skipped += status == SELFTEST_SKIPPED;
		failed += status != 0 && status != SELFTEST_SKIPPED;
		printf("%s %d %s%s\n", status == 0 || status == SELFTEST_SKIPPED ? "ok" : "not ok",
		       i + 1, selftests[i].name, status == SELFTEST_SKIPPED ? " # SKIP" : "");
	}
	printf("# Totals: pass:%d fail:%d xfail:0 xpass:0 skip:%d error:0\n",
	       passed, failed, skipped);
	if (failed)
		return 1;
	return passed ? 0 : SELFTEST_SKIPPED;
}

#endif /* SELFTEST_H */
