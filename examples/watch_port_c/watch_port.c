/* SPDX-License-Identifier: MIT */
/* watch_port - says who takes a port and who was kept out of it. Needs the broker, holdfastd(8). */
#include <holdfast/holdfast.h>

#include <stdio.h>

int main(int argc, char **argv)
{
	const uint32_t kinds = HF_EVENT_CLAIMED | HF_EVENT_RELEASED | HF_EVENT_LAPSED | HF_EVENT_DENIED;
	const char *const *ports = (const char *const *)argv + 1;
	struct hf_error error;
	struct hf_event event;
	hf_watch *watch;

	if (hf_watch_devices(&watch, ports, (size_t)(argc - 1), kinds, &error) != 0) {
		fprintf(stderr, "watch_port: %s\n", error.message);
		return 1;
	}
	while (hf_watch_event(watch, &event, HF_WAIT_FOREVER) == 1) {
		const char *what = event.kind == HF_EVENT_CLAIMED ? "is taken by" :
				   event.kind == HF_EVENT_DENIED  ? "is kept from" :
				   event.kind == HF_EVENT_MISSED  ? "may have changed:" : "is given back by";

		printf("%s %s %s[%d] %s\n", event.device, what, event.command, (int)event.pid, event.detail);
		fflush(stdout);
	}
	perror("watch_port");
	hf_watch_close(watch);
	return 1;
}
