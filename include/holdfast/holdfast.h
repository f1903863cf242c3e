/* SPDX-License-Identifier: MIT */
/*
 * holdfast.h - taking a device for yourself, from C. The promises are those of claim.hpp: the owner is the process, its
 * death releases, all or nothing, no open(2) before the proxy and the lock files are held.
 *
 * Functions return 0, or -1 with errno set; errno says what to do next:
 *   EBUSY      refused: somebody else holds the device      ETIMEDOUT  still held at the deadline
 *   EINTR      a signal handler ran during a wait           EACCES     you may not open the device
 *   ENOENT     no such device                               ENODEV     not a device
 *   ENXIO      the device is gone                           EPERM      the claim is not held by this process
 *   EINVAL     an argument that can never work              ENOTUNIQ   the names of one drive cannot be told apart
 *   EDEADLK    the wait would never end (broker)            ECANCELED  taken back by an administrator (broker)
 *   ETIME      the claim's time is over (broker)
 *   EMFILE, ENFILE, ENOMEM, ENOSPC and others: as the failing system call said.
 *
 * Thread rules: hf_watch_*() on one watch are for one thread at a time. hf_claim_*() on different claims are independent, on one claim they are serialised inside, but for
 * hf_release(), after which the pointer is dead.
 */
#ifndef HOLDFAST_HOLDFAST_H
#define HOLDFAST_HOLDFAST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <holdfast/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The right to use one or more devices. Inert in a forked child. */
typedef struct hf_claim hf_claim;

enum {
	HF_SHARED      = 1u << 0, /* share with other shared claims; without it the claim is exclusive */
	HF_UNIT        = 1u << 1, /* cover the whole physical unit, not only the same function */
	HF_NO_OPEN     = 1u << 2, /* only the conventions that need no open(2) of the device */
	HF_INTERRUPTED = 1u << 3, /* a signal handler that runs during the wait ends it: EINTR */
	HF_TREE        = 1u << 4, /* forked children inherit; the claim ends with the last of them */
	HF_NO_BROKER   = 1u << 5, /* do not ask the broker */
	HF_GUARDED     = 1u << 6, /* refused unless the kernel keeps everybody else out (the guard) */
	HF_UNGUARDED   = 1u << 7, /* without the guard, where it is installed; not with HF_GUARDED */
};

/* Who comes first among waiters at the broker. */
enum {
	HF_IDLE   = -2,
	HF_LOW    = -1,
	HF_NORMAL = 0,
	HF_HIGH   = 1,
	HF_URGENT = 2,
};

#define HF_WAIT_NONE    INT64_C(0)    /* refuse at once */
#define HF_WAIT_FOREVER INT64_C(-1)

/* What to ask for. Zero it, set `size` to sizeof(struct hf_options), then what you need; unknown flags are EINVAL. */
struct hf_options {
	size_t size;
	uint32_t flags;       /* HF_* */
	uint32_t conventions; /* bit N leaves out convention N of enum holdfast::Convention; 0 takes all */
	int64_t wait_ms;      /* milliseconds of CLOCK_MONOTONIC, HF_WAIT_NONE or HF_WAIT_FOREVER */
	const char *purpose;  /* shown to others; may be NULL */
	int64_t lease_ms;     /* the claim lapses so long after its grant; 0: never. Needs the broker, else EIO */
	int32_t priority;     /* HF_IDLE to HF_URGENT */
	uint32_t reserved;    /* 0 */
};

/* Why not, in words. The strings are never NULL; they are cut to fit. */
struct hf_error {
	pid_t holder;       /* 0 when unknown */
	char message[512];  /* one line: device, holder, means, way out */
	char device[256];
};

/*
 * Takes `count` devices, all or nothing. A device is a path, a link, or a number ("c4:64", "b8:0").
 * On success *claim is set; on failure it is NULL and nothing is held. `options` and `error` may be NULL.
 * Cost: some 40 system calls for a terminal.
 */
HF_API int hf_claim_devices(hf_claim **claim, const char *const *devices, size_t count,
			    const struct hf_options *options, struct hf_error *error);

/* The same for one device. */
HF_API int hf_claim_device(hf_claim **claim, const char *device, const struct hf_options *options,
			   struct hf_error *error);

/*
 * A descriptor of device `index` of the claim, open for use; -1 with errno on failure. Borrowed: hf_release() closes
 * it, you must not. On a terminal it has O_NONBLOCK set.
 */
HF_API int hf_claim_fd(hf_claim *claim, size_t index);

/* 1 when this process holds the devices through `claim`, else 0. NULL is 0. */
HF_API int hf_claim_held(const hf_claim *claim);

/* 0 while the devices are there; -1 with ENXIO once one was pulled out. It stays claimed until hf_release(). */
HF_API int hf_claim_check(hf_claim *claim);

/*
 * A descriptor that poll(2) shows readable when hf_claim_check() may answer otherwise than before; -1 with errno on
 * failure: EMFILE when the user has no inotify instance left, ENXIO when a device is gone already. Borrowed; do not read from it.
 */
HF_API int hf_claim_notice_fd(hf_claim *claim);

/* What the broker says of a claim. The strings are never NULL; they are cut to fit. */
enum {
	HF_ASKED_TO_LEAVE = 1, /* it is taken back when grace_ms is over */
	HF_LAPSES_SOON    = 2, /* its time is over in grace_ms: hf_claim_renew() */
	HF_LAPSED         = 3, /* it is over: hf_claim_check() answers ETIME from now on */
	HF_REVOKED        = 4, /* it is over: ECANCELED */
	HF_DEVICE_GONE    = 5, /* a device was pulled out */
	HF_DENIED         = 6, /* the guard has kept somebody out; the claim goes on */
};
struct hf_notice {
	int kind; /* HF_ASKED_TO_LEAVE to HF_DENIED */
	int64_t grace_ms;
	char by[128];
	char reason[256];
};

/* The oldest notice not yet taken: 1 and *notice, 0 when there is none, -1 with errno. Never waits. */
HF_API int hf_claim_notice(hf_claim *claim, struct hf_notice *notice);

/* The claim's time starts anew. EPERM when it has no limit, ETIME or ECANCELED when it is over. */
HF_API int hf_claim_renew(hf_claim *claim, int64_t lease_ms);

/* Exclusive to shared, without a gap. */
HF_API int hf_claim_downgrade(hf_claim *claim);

/* Shared to exclusive; EBUSY when others share, the claim then stays shared. Never waits. */
HF_API int hf_claim_upgrade(hf_claim *claim);

/* Lets the claim survive exec(2): the program that follows keeps it until it ends. */
HF_API int hf_claim_leave_to_exec(hf_claim *claim);

/* Gives the devices back and frees `claim`. In a forked child it only frees. NULL is allowed. */
HF_API void hf_release(hf_claim *claim);

/*
 * What happens to devices, as the broker tells it, from the moment of opening on. One thread at a time. In a forked child
 * every call but hf_watch_close() is EPERM.
 */
typedef struct hf_watch hf_watch;

enum {
	HF_EVENT_CLAIMED    = 1u << 0,  /* somebody holds the device now */
	HF_EVENT_WAITING    = 1u << 1,  /* somebody asked for it and waits */
	HF_EVENT_RELEASED   = 1u << 2,  /* given back by its holder */
	HF_EVENT_LAPSED     = 1u << 3,  /* the holder died, or its time was over */
	HF_EVENT_REVOKED    = 1u << 4,  /* an administrator took it back */
	HF_EVENT_DENIED     = 1u << 5,  /* somebody who may not was kept out */
	HF_EVENT_ADDED      = 1u << 6,  /* the device came */
	HF_EVENT_REMOVED    = 1u << 7,  /* the device went */
	HF_EVENT_REFUSED    = 1u << 8,  /* somebody asked for it, without success */
	HF_EVENT_UPGRADED   = 1u << 9,  /* shared became exclusive */
	HF_EVENT_DOWNGRADED = 1u << 10, /* exclusive became shared */
	HF_EVENT_MISSED     = 1u << 11, /* some were lost, as `detail` says; told whatever was asked for */
};

/* What an event does not have is empty or 0. The strings are never NULL; they are cut to fit. */
struct hf_event {
	uint32_t kind;      /* one of HF_EVENT_*; kinds of later versions are other bits */
	uint32_t shared;    /* 1: of a shared claim */
	int64_t at_ms;      /* milliseconds since 1970, CLOCK_REALTIME */
	int64_t waited_ms;  /* before it held */
	int64_t held_ms;    /* when it ended */
	pid_t pid;          /* who claimed, waits, gave back, was kept out */
	char command[64];
	char user[64];
	char device[256];   /* "/dev/ttyUSB0", the kernel's name */
	char number[64];    /* "c188:0", "b8:0" */
	char purpose[128];
	char detail[256];   /* for people */
};

/*
 * Subscribes to events of `count` devices, named as for hf_claim_devices(); of all devices when `count` is 0. `kinds` is a
 * set of HF_EVENT_*, 0 for all. On failure *watch is NULL: ECONNREFUSED, ENOENT and the like when no broker answers.
 */
HF_API int hf_watch_devices(hf_watch **watch, const char *const *devices, size_t count, uint32_t kinds,
			    struct hf_error *error);

/*
 * Readable when hf_watch_event() may have something; with F_SETOWN and O_ASYNC (fcntl(2)) SIGIO tells of it. Borrowed; do
 * not read from it. After HF_EVENT_MISSED tell epoll(7) of it again: its number stays, its description does not.
 */
HF_API int hf_watch_fd(const hf_watch *watch);

/*
 * The next event: 1 and *event, 0 when there is none within `wait_ms` (HF_WAIT_NONE, HF_WAIT_FOREVER), -1 with errno: EINTR
 * when a signal handler ran.
 */
HF_API int hf_watch_event(hf_watch *watch, struct hf_event *event, int64_t wait_ms);

/* Unsubscribes and frees. NULL is allowed. */
HF_API void hf_watch_close(hf_watch *watch);

#ifdef __cplusplus
}
#endif

#endif
