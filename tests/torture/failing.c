/* A disk that fails on demand, for one process: to be preloaded.
 *
 * FAILING_ROOT names the directory whose files fail, FAILING_ORDERS a file that holds the calls
 * that are to fail and the error numbers that they fail with, as "fsync 5 fdatasync 5 write 28".
 * Without that file nothing fails. "clock -3600" sets the time of day, by so many seconds.
 *
 * An fsync or fdatasync that fails takes away what was written to that file since the last one
 * that did not, as a kernel may that has marked the pages clean: a program that goes on with the
 * file as if nothing had happened is found out.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define FILES 4096

static struct { off64_t from, to; } unsynced[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int is_ours(int fd) {
    const char *root = getenv("FAILING_ROOT");
    char link[64], path[PATH_MAX];
    if (root == NULL || fd < 0 || fd >= FILES) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strncmp(path, root, strlen(root)) == 0;
}

/* The error that a call is to fail with; 0 for none. */
static int ordered(const char *call) {
    const char *orders = getenv("FAILING_ORDERS");
    char text[256], *word, *rest = NULL;
    int fd = orders == NULL ? -1 : open(orders, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0) return 0;
    text[size] = 0;
    for (word = strtok_r(text, " \n", &rest); word != NULL; word = strtok_r(NULL, " \n", &rest)) {
        char *number = strtok_r(NULL, " \n", &rest);
        if (number != NULL && strcmp(word, call) == 0) return atoi(number);
    }
    return 0;
}

static ssize_t write_really(int fd, const void *data, size_t size, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, data, size, offset);
}

static ssize_t write_there(int fd, const void *data, size_t size, off64_t offset) {
    int ours = is_ours(fd), error = ours ? ordered("write") : 0;
    if (error) {
        errno = error;
        return -1;
    }
    if (ours) {
        pthread_mutex_lock(&lock);
        if (unsynced[fd].to == 0 || offset < unsynced[fd].from) unsynced[fd].from = offset;
        if (offset + (off64_t)size > unsynced[fd].to) unsynced[fd].to = offset + size;
        pthread_mutex_unlock(&lock);
    }
    return write_really(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return write_there(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return write_there(fd, data, size, offset);
}

static void take_away(int fd, off64_t from, off64_t to) {
    char garbage[4096];
    memset(garbage, 0xEE, sizeof garbage);
    while (from < to) {
        size_t size = to - from < (off64_t)sizeof garbage ? (size_t)(to - from) : sizeof garbage;
        if (write_really(fd, garbage, size, from) <= 0) return;
        from += size;
    }
}

static int sync_or_fail(int fd, const char *call) {
    int (*real)(int) = dlsym(RTLD_NEXT, call);
    off64_t from = 0, to = 0;
    if (!is_ours(fd)) return real(fd);
    int error = ordered(call);
    pthread_mutex_lock(&lock);
    from = unsynced[fd].from;
    to = unsynced[fd].to;
    unsynced[fd].from = unsynced[fd].to = 0;
    if (error) take_away(fd, from, to);
    pthread_mutex_unlock(&lock);
    if (!error) return real(fd);
    errno = error;
    return -1;
}

int fsync(int fd) { return sync_or_fail(fd, "fsync"); }

int fdatasync(int fd) { return sync_or_fail(fd, "fdatasync"); }

/* A number that is used again is another file. */
int close(int fd) {
    static int (*real)(int);
    if (real == NULL) real = dlsym(RTLD_NEXT, "close");
    if (fd >= 0 && fd < FILES) {
        pthread_mutex_lock(&lock);
        unsynced[fd].from = unsynced[fd].to = 0;
        pthread_mutex_unlock(&lock);
    }
    return real(fd);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    static int (*real)(int, off64_t, off64_t);
    int error = is_ours(fd) ? ordered("fallocate") : 0;
    if (real == NULL) real = dlsym(RTLD_NEXT, "posix_fallocate64");
    return error ? error : real(fd, offset, size);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += ordered("clock");
    return result;
}

int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }
