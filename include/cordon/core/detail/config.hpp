// SPDX-License-Identifier: MIT
#pragma once

// The build's few switches, and the inline namespace that carries them, so that objects built with different
// switches share no type by accident: they fail to link instead.

#if !defined(__cpp_exceptions) && !defined(__cpp_rtti) && !defined(_MSC_VER)
#error "cordon: -fno-exceptions needs RTTI, without which the standard library makes no exception_ptr of a timeout_error"
#endif

/// 1 keeps a record of every spawned task for dumps and leak reports; 0 removes the records and their cost.
#ifndef CORDON_TASK_RECORDS
#define CORDON_TASK_RECORDS 1
#endif

/// 1 recycles coroutine frames through a cache per thread; 0 uses operator new and delete. Off under
/// AddressSanitizer in any case, since a cache would hide every use after free. Changes no layout.
#ifndef CORDON_FRAME_CACHE
#define CORDON_FRAME_CACHE 1
#endif

#if defined(__SANITIZE_ADDRESS__)
#undef CORDON_FRAME_CACHE
#define CORDON_FRAME_CACHE 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#undef CORDON_FRAME_CACHE
#define CORDON_FRAME_CACHE 0
#endif
#endif

#if CORDON_TASK_RECORDS && defined(__cpp_exceptions)
#define CORDON_ABI v0
#elif CORDON_TASK_RECORDS
#define CORDON_ABI v0_noexcept
#elif defined(__cpp_exceptions)
#define CORDON_ABI v0_norecords
#else
#define CORDON_ABI v0_norecords_noexcept
#endif

/// Of a variable: one copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#define CORDON_ONE_COPY [[gnu::visibility("default")]]
#else
#define CORDON_ONE_COPY
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define CORDON_NOINLINE __declspec(noinline)
#else
#define CORDON_NOINLINE [[gnu::noinline]]
#endif

/// On a parameter, or behind the parentheses of a member: the result refers to it. Clang warns of a function that
/// returns what refers to its own variables (-Wreturn-stack-address) or is left with what refers to a temporary.
#if defined(__clang__)
#define CORDON_LIFETIME_BOUND [[clang::lifetimebound]]
#else
#define CORDON_LIFETIME_BOUND
#endif

/// For a function that reads a thread-local: Clang and MSVC may keep the address of one across a suspension that they
/// have inlined it around. GCC splits a coroutine before it optimizes.
#if defined(__GNUC__) && !defined(__clang__)
#define CORDON_THREAD_LOCAL_ACCESS
#else
#define CORDON_THREAD_LOCAL_ACCESS CORDON_NOINLINE
#endif
