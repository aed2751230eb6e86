package inflight

import "encoding/binary"

// maxQueued bounds how many calls without a worker are read.
const maxQueued = 1024

// queued returns the calls that no worker has taken up, from the queue of a pool that one
// of these words is the address of: virThreadPool (src/util/virthreadpool.c) keeps the first
// and the last of its jobs.
func (m memory) queued(words []uint64) (jobs []queuedCall) {
	for _, w := range words {
		var pool [128]byte
		if !m.read(w, pool[:]) {
			continue
		}
		for i := 0; i+8 <= len(pool); i += 8 {
			if found := m.jobs(binary.LittleEndian.Uint64(pool[i:])); len(found) > len(jobs) {
				jobs = found
			}
		}
		if len(jobs) > 0 {
			return jobs
		}
	}
	return nil
}

// queuedCall is what a job of the pool is to do: virNetServerJob (src/rpc/virnetserver.c).
type queuedCall struct {
	client uint64
	message
}

// jobs follows a list of virThreadPoolJob: previous, next, priority, data.
func (m memory) jobs(at uint64) (jobs []queuedCall) {
	for seen := map[uint64]bool{}; !seen[at] && len(jobs) < maxQueued; {
		seen[at] = true
		var job, data [32]byte
		if !m.read(at, job[:]) || !m.read(binary.LittleEndian.Uint64(job[24:]), data[:]) {
			return jobs
		}
		msg, ok := m.message(binary.LittleEndian.Uint64(data[8:]))
		if !ok {
			return jobs
		}
		jobs = append(jobs, queuedCall{binary.LittleEndian.Uint64(data[:]), msg})
		at = binary.LittleEndian.Uint64(job[8:])
	}
	return jobs
}
