#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void end_for_memory(void)
{
    static const char message[] = "edgekd_agent: out of memory\n";
    if (write(2, message, sizeof message - 1) < 0) {
        /* nobody listens */
    }
    _exit(3);
}

void *need(size_t size)
{
    void *memory = calloc(1, size > 0 ? size : 1);
    if (memory == NULL)
        end_for_memory();
    return memory;
}

char *need_copy(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(need(size), text, size);
}

static char *room_for(Text *text, size_t more)
{
    if (text->capacity - text->size < more) {
        size_t capacity = 2 * text->capacity + more + 256;
        char *grown = capacity > text->capacity ? realloc(text->data, capacity) : NULL;
        if (grown == NULL)
            end_for_memory();
        text->data = grown;
        text->capacity = capacity;
    }
    return text->data + text->size;
}

void text_bytes(Text *text, const void *data, size_t size)
{
    memcpy(room_for(text, size + 1), data, size);
    text->size += size;
}

void text_add(Text *text, const char *format, ...)
{
    char piece[512]; /* no caller's format can give more; longer texts go through text_string */
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(piece, sizeof piece, format, arguments);
    va_end(arguments);
    if (size > 0)
        text_bytes(text, piece, (size_t)size < sizeof piece ? (size_t)size : sizeof piece - 1);
}

void text_string(Text *text, const char *value)
{
    text_bytes(text, "\"", 1);
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\')
            text_add(text, "\\%c", *at);
        else if ((unsigned char)*at < 0x20 || *at == 0x7f)
            text_add(text, "\\u%04x", (unsigned)*at);
        else
            text_bytes(text, at, 1);
    }
    text_bytes(text, "\"", 1);
}

void text_base64(Text *text, const void *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = data;
    text_bytes(text, "\"", 1);
    for (size_t at = 0; at < size; at += 3) {
        size_t left = size - at;
        unsigned long three = (unsigned long)bytes[at] << 16;
        three |= left > 1 ? (unsigned long)bytes[at + 1] << 8 : 0;
        three |= left > 2 ? bytes[at + 2] : 0;
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63], digits[three >> 6 & 63], digits[three & 63]};
        if (left < 3)
            four[3] = '=';
        if (left < 2)
            four[2] = '=';
        text_bytes(text, four, 4);
    }
    text_bytes(text, "\"", 1);
}

void text_free(Text *text)
{
    free(text->data);
    *text = (Text){0};
}
