package export

// InParts has objects above most put in parts of size.
func InParts(o Options, most, size int64) Options {
	o.oneMost, o.partSize = most, size
	return o
}
