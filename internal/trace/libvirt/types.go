package libvirt

// Kind is the form of a decoded value.
type Kind uint8

// The kinds. Optional, Union and the array forms of characters exist in the
// tables only: what is decoded is the thing itself, Null or a string.
const (
	kVoid   Kind = iota
	kInt         // Num as int32
	kUint        // Num as uint32
	kHyper       // Num as int64
	kUhyper      // Num as uint64
	kDouble      // Num as the float's bits
	kEnum        // Num, named by its table
	kString      // Bytes
	kOpaque      // Bytes
	kUUID        // Bytes, 16 of them
	kStruct      // children
	kParam       // a typed parameter: two children, its name and its value
	kArray       // children; Num is their count on the wire
	kNull        // an optional value that is absent
	kOptional
	kUnion
	kChars      // characters of four bytes each, as XDR has them
	kFixedChars // likewise, without a length
)

type typeInfo struct {
	kind   Kind
	object ObjectKind
	elem   uint16 // array, optional: element; struct, union: first field; enum: table
	count  uint32 // struct, union: fields; string, opaque, array: largest length, or the length
	name   string
}

type fieldInfo struct {
	name  string
	typ   uint16
	hint  hint
	table uint16
	arm   int32 // of a union: the discriminant that selects it
}

type hint uint8

const (
	hintNone   hint = iota
	hintNames       // a number of a table
	hintFlags       // a set of bits of a table
	hintSecret      // masked
	hintJSON        // QMP
)

// ObjectKind is what sort of thing a call is about.
type ObjectKind uint8

// The kinds of object.
const (
	ObjectNone ObjectKind = iota
	ObjectDomain
	ObjectNetwork
	ObjectNetworkPort
	ObjectNWFilter
	ObjectNWFilterBinding
	ObjectInterface
	ObjectStoragePool
	ObjectStorageVol
	ObjectNodeDevice
	ObjectSecret
	ObjectCheckpoint
	ObjectSnapshot
)
