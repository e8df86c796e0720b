// SPDX-License-Identifier: MIT
#pragma once

/// The version of this library as major * 10000 + minor * 100 + patch. The build files read it from here.
#define CORDON_VERSION 100
