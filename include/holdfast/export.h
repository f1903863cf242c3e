/* SPDX-License-Identifier: MIT */
/* export.h - which symbols the shared library shows. Everything else is hidden, so that it can change freely. */
#ifndef HOLDFAST_EXPORT_H
#define HOLDFAST_EXPORT_H

#define HF_API __attribute__((visibility("default")))

#endif
