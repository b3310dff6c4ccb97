/* Element types of tensors: their sizes, values to fill inputs with, and denormal numbers in outputs. */
#ifndef EDGEKD_TENSORS_H
#define EDGEKD_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The numbers of LiteRT's element types. */
enum ElementType {
    TYPE_FLOAT32 = 1,
    TYPE_INT32 = 2,
    TYPE_UINT8 = 3,
    TYPE_INT64 = 4,
    TYPE_STRING = 5,
    TYPE_BOOL = 6,
    TYPE_INT16 = 7,
    TYPE_COMPLEX64 = 8,
    TYPE_INT8 = 9,
    TYPE_FLOAT16 = 10,
    TYPE_FLOAT64 = 11,
    TYPE_COMPLEX128 = 12,
    TYPE_UINT64 = 13,
    TYPE_UINT32 = 16,
    TYPE_UINT16 = 17,
    TYPE_INT4 = 18,
    TYPE_BFLOAT16 = 19,
    TYPE_INT2 = 20,
};

/* The bits of one element, or 0 for a type of no fixed size (strings, resources). */
unsigned type_bits(int type);
/* Fill with values of a real range; false for a type that has none. The same seed gives the same values. */
bool fill_values(int type, void *data, size_t bytes, uint64_t seed);
bool has_denormals(int type, const void *data, size_t bytes);

/* A small generator of good numbers (splitmix64), for inputs and for the order of visits. */
uint64_t next_random(uint64_t *state);

#endif
