/* SPDX-License-Identifier: MIT */
/* hold_port - the same in C: takes a serial port, sends a line, and keeps the port until its input ends. */
#include <holdfast/holdfast.h>

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct hf_options options = { .size = sizeof(options), .wait_ms = 2000, .purpose = "example" };
	struct hf_error error;
	hf_claim *claim;

	if (argc != 2) {
		fprintf(stderr, "usage: hold_port DEVICE\n");
		return 64;
	}
	if (hf_claim_device(&claim, argv[1], &options, &error) != 0) {
		int why = errno;

		fprintf(stderr, "hold_port: %s\n", error.message);
		return why == EBUSY || why == ETIMEDOUT ? 75 : 1;
	}
	if (write(hf_claim_fd(claim, 0), "hello\n", 6) != 6) {
		perror("hold_port: write");
		return 1;
	}
	printf("holding %s\n", argv[1]);
	fflush(stdout);

	while (getchar() != EOF)
		continue;
	hf_release(claim);
	return 0;
}
