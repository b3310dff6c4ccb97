#include "json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

enum { MAX_DEPTH = 16, CHUNK = 256 };

typedef struct JsonChunk {
    struct JsonChunk *before;
    size_t used;
    Json values[CHUNK];
} JsonChunk;

typedef struct {
    JsonDocument *document;
    const char *at;
    const char *end;
    char *texts; /* where the next text goes: what is decoded is never longer than what was read */
} Reader;

static bool read_value(Reader *reader, Json *value, int depth);

static Json *new_value(JsonDocument *document)
{
    if (document->chunks == NULL || document->chunks->used == CHUNK) {
        JsonChunk *chunk = need(sizeof *chunk);
        chunk->before = document->chunks;
        document->chunks = chunk;
    }
    return &document->chunks->values[document->chunks->used++];
}

static void skip_space(Reader *reader)
{
    while (reader->at < reader->end && strchr(" \t\r\n", *reader->at) != NULL && *reader->at != '\0')
        reader->at++;
}

static bool take(Reader *reader, char wanted)
{
    if (reader->at == reader->end || *reader->at != wanted)
        return false;
    reader->at++;
    return true;
}

static bool take_word(Reader *reader, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(reader->end - reader->at) < size || memcmp(reader->at, word, size) != 0)
        return false;
    reader->at += size;
    return true;
}

static size_t take_digits(Reader *reader)
{
    const char *began = reader->at;
    while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9')
        reader->at++;
    return (size_t)(reader->at - began);
}

static bool scan_number(Reader *reader)
{
    take(reader, '-');
    if (!take(reader, '0') && take_digits(reader) == 0)
        return false;
    if (take(reader, '.') && take_digits(reader) == 0)
        return false;
    if (take(reader, 'e') || take(reader, 'E')) {
        if (!take(reader, '+'))
            take(reader, '-');
        return take_digits(reader) > 0;
    }
    return true;
}

static bool read_number(Reader *reader, Json *value)
{
    const char *began = reader->at;
    if (!scan_number(reader))
        return false;
    size_t size = (size_t)(reader->at - began);
    value->kind = JSON_NUMBER;
    value->text = memcpy(reader->texts, began, size);
    reader->texts += size;
    *reader->texts++ = '\0';
    return true;
}

static bool read_hex4(Reader *reader, unsigned *code)
{
    *code = 0;
    if (reader->end - reader->at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef";
        char digit = *reader->at++;
        const char *found = digit == '\0' ? NULL : strchr(digits, digit >= 'A' && digit <= 'F' ? digit + 32 : digit);
        if (found == NULL)
            return false;
        *code = *code << 4 | (unsigned)(found - digits);
    }
    return true;
}

static void put_utf8(Reader *reader, unsigned code)
{
    char *out = reader->texts;
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
        *out++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *out++ = (char)(0xe0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    } else {
        *out++ = (char)(0xf0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 63));
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    }
    reader->texts = out;
}

static bool read_unicode(Reader *reader)
{
    unsigned code, low;
    if (!read_hex4(reader, &code) || code == 0 || (code >= 0xdc00 && code < 0xe000))
        return false;
    if (code >= 0xd800 && code < 0xdc00) {
        if (!take_word(reader, "\\u") || !read_hex4(reader, &low) || low < 0xdc00 || low >= 0xe000)
            return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    put_utf8(reader, code);
    return true;
}

static bool read_escape(Reader *reader)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (reader->at == reader->end)
        return false;
    char name = *reader->at++;
    if (name == 'u')
        return read_unicode(reader);
    const char *found = name == '\0' ? NULL : strchr(names, name);
    if (found == NULL)
        return false;
    *reader->texts++ = values[found - names];
    return true;
}

static const char *read_string(Reader *reader)
{
    const char *text = reader->texts;
    if (!take(reader, '"'))
        return NULL;
    while (reader->at < reader->end && *reader->at != '"') {
        char c = *reader->at++;
        if ((unsigned char)c < 0x20)
            return NULL;
        if (c != '\\')
            *reader->texts++ = c;
        else if (!read_escape(reader))
            return NULL;
    }
    *reader->texts++ = '\0'; /* in the place of the closing quote */
    return take(reader, '"') ? text : NULL;
}

static bool read_member(Reader *reader, Json *object, Json *member)
{
    skip_space(reader);
    const char *key = read_string(reader);
    if (key == NULL || json_member(object, key) != NULL)
        return false;
    skip_space(reader);
    member->key = key;
    return take(reader, ':');
}

static bool read_items(Reader *reader, Json *parent, int depth)
{
    char close = parent->kind == JSON_OBJECT ? '}' : ']';
    Json **last = &parent->child;
    skip_space(reader);
    if (take(reader, close))
        return true;
    do {
        Json *item = new_value(reader->document);
        if (parent->kind == JSON_OBJECT && !read_member(reader, parent, item))
            return false;
        if (!read_value(reader, item, depth + 1))
            return false;
        *last = item;
        last = &item->next;
        skip_space(reader);
    } while (take(reader, ','));
    return take(reader, close);
}

static bool read_value(Reader *reader, Json *value, int depth)
{
    skip_space(reader);
    if (reader->at == reader->end || depth > MAX_DEPTH)
        return false;
    switch (*reader->at) {
    case '{':
    case '[':
        value->kind = *reader->at++ == '{' ? JSON_OBJECT : JSON_ARRAY;
        return read_items(reader, value, depth);
    case '"':
        value->kind = JSON_STRING;
        value->text = read_string(reader);
        return value->text != NULL;
    case 'n':
        value->kind = JSON_NULL;
        return take_word(reader, "null");
    case 't':
    case 'f':
        value->kind = JSON_BOOL;
        return take_word(reader, "true") || take_word(reader, "false");
    default:
        return read_number(reader, value);
    }
}

bool json_read(JsonDocument *document, const char *line, size_t size)
{
    *document = (JsonDocument){0};
    document->texts = need(2 * size + 2); /* a text takes what was read, a byte at least, and a NUL */
    Reader reader = {document, line, line + size, document->texts};
    document->root = new_value(document);
    if (!read_value(&reader, document->root, 0))
        return false;
    skip_space(&reader);
    return reader.at == reader.end;
}

void json_free(JsonDocument *document)
{
    while (document->chunks != NULL) {
        JsonChunk *before = document->chunks->before;
        free(document->chunks);
        document->chunks = before;
    }
    free(document->texts);
    *document = (JsonDocument){0};
}

const Json *json_member(const Json *object, const char *key)
{
    if (object == NULL || object->kind != JSON_OBJECT)
        return NULL;
    for (const Json *member = object->child; member != NULL; member = member->next)
        if (strcmp(member->key, key) == 0)
            return member;
    return NULL;
}

const char *json_text(const Json *object, const char *key)
{
    const Json *member = json_member(object, key);
    return member != NULL && member->kind == JSON_STRING ? member->text : NULL;
}

bool json_integer(const Json *object, const char *key, int64_t low, int64_t high, int64_t *value)
{
    const Json *member = json_member(object, key);
    if (member == NULL || member->kind != JSON_NUMBER || strpbrk(member->text, ".eE") != NULL)
        return false;
    errno = 0;
    *value = strtoll(member->text, NULL, 10);
    return errno == 0 && low <= *value && *value <= high;
}

bool json_real(const Json *object, const char *key, double low, double high, double *value)
{
    const Json *member = json_member(object, key);
    if (member == NULL || member->kind != JSON_NUMBER)
        return false;
    *value = strtod(member->text, NULL); /* no locale is ever set: the point is a point */
    return low <= *value && *value <= high;
}
