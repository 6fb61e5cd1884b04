// Package confine says what the processes of a Sandbox may ask of the kernel, and what this machine's kernel lets a host set up.
//
// Main types: [Host], what [Probe] found; [Rule], one of the rules that [Landlock] gives beside its ruleset. [Seccomp] gives the filter of
// system calls. Both filters are data: the bytes that the kernel takes. Nothing here confines the calling process.
//
// Guarantees:
//
//  1. A system call that is not known to be harmless is refused: with EPERM where it is known and dangerous, with ENOSYS, so that programs fall
//     back, where it is new, old or has an older sister.
//  2. The decision rests on the number and the lower halves of plain arguments, never on memory that the caller could change meanwhile.
//  3. A program for another machine (32-bit x86 on amd64, 32-bit ARM on arm64) is killed by its first system call.
//  4. With Landlock, nothing can be written but beneath /tmp, /dev/shm and /dev/pts and to a few devices, whatever the mounts say.
//  5. Probe changes nothing: it tries in short-lived children, which it has reaped when it returns.
//
// What the filter does not do: it does not hide files or bound resources, which mounts and control groups do. It knows nothing of functions,
// Sandboxes or how the filters are applied. Elsewhere than on Linux there is only [Host].
package confine
