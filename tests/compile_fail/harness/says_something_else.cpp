// SPDX-License-Identifier: MIT
// expect: pass the context by hand
static_assert(false, "not that");
