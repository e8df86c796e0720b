// SPDX-License-Identifier: MIT
#include "parked.hpp"

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void* park_left() { return new parked("left"); }
EXPORTED void release_left(void* p) { delete static_cast<parked*>(p); }
EXPORTED std::size_t left_sees(const char* name) { return seen(name); }
EXPORTED const void* left_borrows(cordon::object_pool<int>& pool) { return borrow_and_return(pool); }
EXPORTED bool left_sees_keys(const cordon::context& said) { return sees_keys(said); }
