/* SHA-256 (FIPS 180-4) of a whole buffer, as 64 lower-case hex digits. */
#ifndef EDGEKD_SHA256_H
#define EDGEKD_SHA256_H

#include <stddef.h>

enum { SHA256_HEX = 64 };

void sha256_hex(const void *data, size_t size, char hex[SHA256_HEX + 1]);

#endif
