# SPDX-License-Identifier: MIT
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/cordon)
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

install(TARGETS cordon EXPORT cordonTargets FILE_SET HEADERS FILE_SET interop FILE_SET interop_detail)
install(EXPORT cordonTargets NAMESPACE cordon:: DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/cordonConfigVersion.cmake
    COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/cordonConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/cordonConfigVersion.cmake
    DESTINATION ${package_dir})

set(prefix_from_pkgconfig /)
cmake_path(RELATIVE_PATH prefix_from_pkgconfig BASE_DIRECTORY /${pkgconfig_dir})
configure_file(cmake/cordon.pc.in cordon.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cordon.pc DESTINATION ${pkgconfig_dir})

install(PROGRAMS tools/lint_gcc12.py DESTINATION ${CMAKE_INSTALL_DATADIR}/cordon)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
