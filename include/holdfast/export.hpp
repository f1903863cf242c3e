// SPDX-License-Identifier: MIT
// export.hpp - which symbols the shared library shows. Everything else is hidden, so that it can change freely.
#pragma once

#define HF_API __attribute__((visibility("default")))
