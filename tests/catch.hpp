// SPDX-License-Identifier: MIT
#pragma once

// Catch2, in whichever of its two header layouts is installed.
#ifdef CORDON_CATCH2_V3
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
