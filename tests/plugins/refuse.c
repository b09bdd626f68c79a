/* Preloaded, refuses what the variable REFUSE names, as file systems do that cannot do it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int refused(const char *what) {
    const char *wanted = getenv("REFUSE");
    return wanted != NULL && strstr(wanted, what) != NULL;
}

static int is_folder(int descriptor) {
    struct stat status;
    return fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
}

int fsync(int descriptor) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (refused("sync-folder") && is_folder(descriptor)) { errno = EINVAL; return -1; }
    if (refused("sync-broken") && is_folder(descriptor)) { errno = EIO; return -1; }
    return real(descriptor);
}

int flock(int descriptor, int operation) {
    int (*real)(int, int) = dlsym(RTLD_NEXT, "flock");
    if (refused("flock")) { errno = ENOLCK; return -1; }
    return real(descriptor, operation);
}

static int set_lock(int command) { return command == F_SETLK || command == F_SETLKW; }

int fcntl64(int descriptor, int command, ...) {
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, "fcntl64");
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (refused("posix-lock") && set_lock(command)) { errno = ENOSYS; return -1; }
    return real(descriptor, command, argument);
}

int fcntl(int descriptor, int command, ...) {
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, "fcntl");
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (refused("posix-lock") && set_lock(command)) { errno = ENOSYS; return -1; }
    return real(descriptor, command, argument);
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    struct stat status;
    if (refused("rename-folder") && stat(from, &status) == 0 && S_ISDIR(status.st_mode)) { errno = EXDEV; return -1; }
    if (refused("rename-tar") && strstr(to, ".tar") != NULL && strstr(to, ".copy") == NULL
        && strstr(from, ".copy") == NULL && strstr(from, "/work/") != NULL && strstr(to, "/work/") == NULL) {
        errno = EXDEV;
        return -1;
    }
    return real(from, to);
}

int posix_fallocate64(int descriptor, off_t offset, off_t length) {
    int (*real)(int, off_t, off_t) = dlsym(RTLD_NEXT, "posix_fallocate64");
    return refused("allocate") ? EOPNOTSUPP : real(descriptor, offset, length);
}

int posix_fallocate(int descriptor, off_t offset, off_t length) {
    int (*real)(int, off_t, off_t) = dlsym(RTLD_NEXT, "posix_fallocate");
    return refused("allocate") ? EOPNOTSUPP : real(descriptor, offset, length);
}
