package resident

import "syscall"

// pageOut is MADV_PAGEOUT, which package syscall does not have.
const pageOut = 21

// Piece is the most that is given back in one system call, in which the kernel need not let go of the processor: 256 pages, about 100 us.
const Piece = 1 << 20

// Out asks the kernel to reclaim the pages, and returns for how many bytes it did. What cannot be reclaimed stays: pages that other
// processes use as well, and those of files that this one's user neither owns nor may write. ErrUnsupported if the system does not know of
// it, or not for some of the pages: then what was asked for before may be gone.
func Out(set Set) (asked int, err error) {
	for _, span := range set {
		for at := span.Begin; at < span.End; at += Piece {
			size := min(Piece, span.End-at)
			_, _, code := syscall.Syscall(syscall.SYS_MADVISE, at, size, pageOut)
			switch code {
			case syscall.EINVAL, syscall.ENOSYS, syscall.EPERM:
				return asked, ErrUnsupported
			}
			asked += int(size) // any other: it is mapped no more, or will not go
		}
	}
	return asked, nil
}
