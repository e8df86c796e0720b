// SPDX-License-Identifier: MIT
#define CATCH_CONFIG_RUNNER
#include "catch.hpp"

#include <cordon/interop/catch2.hpp>  // every test ends under a leak_check

int main(int argc, char* argv[]) {
    Catch::Session session;
    if (const int bad = session.applyCommandLine(argc, argv); bad != 0) return bad;
#ifndef CORDON_CATCH2_V3
    // As in version 3: a filter that matches nothing is a failure, or a misspelt test would pass.
    session.configData().warnings = static_cast<Catch::WarnAbout::What>(Catch::WarnAbout::NoTests);
#endif
    return session.run();
}
