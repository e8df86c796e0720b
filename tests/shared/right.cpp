// SPDX-License-Identifier: MIT
#include "parked.hpp"

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void* park_right() { return new parked("right"); }
EXPORTED void release_right(void* p) { delete static_cast<parked*>(p); }
EXPORTED std::size_t right_sees(const char* name) { return seen(name); }
EXPORTED const void* right_borrows(cordon::object_pool<int>& pool) { return borrow_and_return(pool); }
EXPORTED bool right_sees_keys(const cordon::context& said) { return sees_keys(said); }
