package resume

// ringMin is what a ring that holds anything takes at least, in bytes.
const ringMin = 16 << 10

// ring holds the bytes [start, end) of a stream, which it numbers from 0. Its memory grows as it fills and is
// given back by shrink. It is not safe for concurrent use.
type ring struct {
	buf        []byte // nil, or a power of two long
	start, end uint64
}

func (r *ring) len() int { return int(r.end - r.start) }

// grow makes room for n more bytes.
func (r *ring) grow(n int) {
	need := r.len() + n
	if need <= len(r.buf) {
		return
	}
	size := ringMin
	for size < need {
		size *= 2
	}
	bigger := ring{buf: make([]byte, size), start: r.start, end: r.start}
	for off := r.start; off < r.end; {
		off += uint64(bigger.append(r.from(off)))
	}
	r.buf = bigger.buf
}

// room returns the free space after end, as far as it lies in one piece.
func (r *ring) room() []byte {
	if len(r.buf) == 0 {
		return nil
	}
	at := int(r.end % uint64(len(r.buf)))
	return r.buf[at:min(len(r.buf), at+len(r.buf)-r.len())]
}

// from returns what is held from off on, as far as it lies in one piece.
func (r *ring) from(off uint64) []byte {
	if off >= r.end {
		return nil
	}
	at := int(off % uint64(len(r.buf)))
	return r.buf[at:min(len(r.buf), at+int(r.end-off))]
}

// append adds as much of p as there is room for.
func (r *ring) append(p []byte) int {
	n := 0
	for n < len(p) {
		m := copy(r.room(), p[n:])
		if m == 0 {
			break
		}
		r.end += uint64(m)
		n += m
	}
	return n
}

// read fills p with what is held from off on.
func (r *ring) read(off uint64, p []byte) int {
	n := 0
	for n < len(p) {
		m := copy(p[n:], r.from(off+uint64(n)))
		if m == 0 {
			break
		}
		n += m
	}
	return n
}

// shrink gives the memory back when nothing is held.
func (r *ring) shrink() {
	if r.start == r.end {
		r.buf = nil
	}
}
