/* Bytes that are put together, and files of the kernel's that are read. */

#include "inside.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>

void put(struct text *to, const void *from, size_t size)
{
    if (size > to->room - to->size)
        BROKEN("a text is longer than its room");
    memcpy(to->at + to->size, from, size);
    to->size += size;
}

void put_format(struct text *to, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(to->at + to->size, to->room - to->size, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= to->room - to->size)
        BROKEN("a text is longer than its room");
    to->size += size;
}

int open_quietly(const char *path, int flags)
{
    return open(path, flags | O_CLOEXEC);
}

size_t read_file(int file, char *to, size_t room)
{
    ssize_t size = file < 0 ? 0 : pread(file, to, room - 1, 0);
    to[size < 0 ? 0 : size] = '\0';
    return size < 0 ? 0 : size;
}

char *contents(const char *path)
{
    size_t room = 4096, size = 0;
    char *text = room_for(room);
    int file = open_quietly(path, O_RDONLY);
    ssize_t got = 0;
    while (file >= 0 && (got = read(file, text + size, room - size - 1)) > 0 && room < MIB) {
        size += got;
        if (room - size <= 1 && !(text = realloc(text, room *= 2)))
            BROKEN("no memory is left");
    }
    if (file >= 0)
        close(file);
    text[size] = '\0';
    return text;
}

int64_t number_after(const char *text, const char *words)
{
    size_t size = strlen(words);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += line != text || *line == '\n';
        if (!strncmp(line, words, size))
            return strtoll(line + size, NULL, 10);
    }
    return 0;
}

void *room_for(size_t size)
{
    void *made = malloc(size ? size : 1);
    if (!made)
        BROKEN("no memory is left");
    return made;
}
