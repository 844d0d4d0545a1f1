package resident

import (
	"syscall"
	"time"
)

// pageOut is MADV_PAGEOUT, which package syscall does not have.
const pageOut = 21

// Piece is the most that is given back in one system call, in which the kernel need not let go of the processor: 256 pages, about 100 us.
const Piece = 1 << 20

// Out asks the kernel to reclaim the pages; after each piece it calls after with the time that took. What cannot be reclaimed stays: pages
// that other processes use as well, and those of files that this one's user neither owns nor may write. ErrUnsupported if the system
// does not know of it.
func Out(set Set, after func(time.Duration)) error {
	for _, span := range set {
		for at := span.Begin; at < span.End; at += Piece {
			began := time.Now()
			_, _, code := syscall.Syscall(syscall.SYS_MADVISE, at, min(Piece, span.End-at), pageOut)
			switch code {
			case syscall.EINVAL, syscall.ENOSYS, syscall.EPERM:
				return ErrUnsupported
			}
			after(time.Since(began)) // any other: it is mapped no more, or will not go
		}
	}
	return nil
}
