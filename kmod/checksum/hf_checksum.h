/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hf_checksum.h - /dev/hf_checksum* for users inside the kernel. They lock it by
 * hf_exclusive_lock() and its siblings, with a caller of their own.
 */
#ifndef HF_CHECKSUM_H
#define HF_CHECKSUM_H

#include <linux/types.h>

struct hf_checksum;
struct hf_exclusive;
struct hf_exclusive_caller;

/**
 * struct hf_checksum_sums - of a buffer
 * @crc32c: as in struct hf_checksum_process
 * @sha256: likewise
 */
struct hf_checksum_sums {
	u32 crc32c;
	u8 sha256[32];
};

struct hf_checksum *hf_checksum_get(const char *name);
void hf_checksum_put(struct hf_checksum *checksum);
struct hf_exclusive *hf_checksum_exclusive(struct hf_checksum *checksum);
int hf_checksum_process(struct hf_checksum *checksum, const struct hf_exclusive_caller *caller,
			const void *data, size_t size, struct hf_checksum_sums *sums);

#endif
