package posterntest

// Killed runs do, which calls step before each change that it makes, and ends it in the call
// number n, as a kill of the process would. It reports whether do came so far.
func Killed(n int, do func(step func())) (yes bool) {
	type kill struct{}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(kill); !ok {
				panic(p)
			}
			yes = true
		}
	}()
	do(func() {
		if n--; n < 0 {
			panic(kill{})
		}
	})
	return false
}
