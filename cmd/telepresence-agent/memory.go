package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryLimit returns the container's memory limit in bytes, from its cgroup at root (v2, then v1); math.MaxInt64 if
// it has none or it can't be found.
func memoryLimit(root string) int64 {
	for _, name := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			return n
		}
	}
	return math.MaxInt64
}

// limitMemory lets the garbage collector keep within a memory limit, and a little more eager than usual where there
// is none: the agent runs beside others' containers.
func limitMemory(limit int64) {
	debug.SetGCPercent(50)
	if limit < math.MaxInt64/2 { // v1 says a number near the largest when there is no limit
		debug.SetMemoryLimit(limit / 4 * 3)
	}
}

// bufferSize is how much the tunnel may keep in each direction under a memory limit.
func bufferSize(limit int64) int {
	const least, most = 512 << 10, 32 << 20
	return int(min(max(limit/24, least), most))
}
