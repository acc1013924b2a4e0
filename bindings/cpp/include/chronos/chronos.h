// The name of the header in the earlier implementation.
//
// License: Apache-2.0
#ifndef CHRONOS_H
#define CHRONOS_H
#include <chronos/chronos.hpp>
#endif
