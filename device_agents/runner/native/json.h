/* One JSON value read strictly (RFC 8259) into a tree: no trailing bytes, no duplicate keys, no NUL inside a string. */
#ifndef EDGEKD_JSON_H
#define EDGEKD_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct Json {
    JsonKind kind;
    const char *key;  /* of a member, else NULL */
    const char *text; /* a string decoded to UTF-8, or a number as it was written */
    struct Json *child; /* the first of an array's or object's */
    struct Json *next;
} Json;

typedef struct {
    Json *root;
    char *texts;           /* decoded strings and numbers, one after the other */
    struct JsonChunk *chunks;
} JsonDocument;

/* Read a line; false when it is no JSON. The document must be freed either way. */
bool json_read(JsonDocument *document, const char *line, size_t size);
void json_free(JsonDocument *document);

/* Return a member of an object, or NULL: also for no object. */
const Json *json_member(const Json *object, const char *key);
/* Return a member's text, or NULL when it is no string. */
const char *json_text(const Json *object, const char *key);
/* Read a member that is a whole number, or a number, within its limits. */
bool json_integer(const Json *object, const char *key, int64_t low, int64_t high, int64_t *value);
bool json_real(const Json *object, const char *key, double low, double high, double *value);

#endif
