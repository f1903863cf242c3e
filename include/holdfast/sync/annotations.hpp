// SPDX-License-Identifier: MIT
// sync/annotations.hpp - Clang's thread-safety attributes, and the shape of a word that the kernel gives back.
//
// \source  https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#pragma once

#if defined(__clang__)
#define HF_TS(attribute) __attribute__((attribute))
#else
#define HF_TS(attribute)
#endif

#define HF_CAPABILITY(name) HF_TS(capability(name))
#define HF_SCOPED_CAPABILITY HF_TS(scoped_lockable)
#define HF_ACQUIRE(...) HF_TS(acquire_capability(__VA_ARGS__))
#define HF_ACQUIRE_SHARED(...) HF_TS(acquire_shared_capability(__VA_ARGS__))
#define HF_RELEASE(...) HF_TS(release_capability(__VA_ARGS__))
#define HF_RELEASE_SHARED(...) HF_TS(release_shared_capability(__VA_ARGS__))
#define HF_TRY_ACQUIRE(...) HF_TS(try_acquire_capability(__VA_ARGS__))
#define HF_TRY_ACQUIRE_SHARED(...) HF_TS(try_acquire_shared_capability(__VA_ARGS__))
#define HF_REQUIRES(...) HF_TS(requires_capability(__VA_ARGS__))
#define HF_EXCLUDES(...) HF_TS(locks_excluded(__VA_ARGS__))
#define HF_GUARDED_BY(lock) HF_TS(guarded_by(lock))
/// For what the analysis cannot follow: a Result that says whether the lock is held.
#define HF_NO_ANALYSIS HF_TS(no_thread_safety_analysis)
