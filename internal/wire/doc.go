// Package wire answers requests of AWS's clients with ebb's own services.
//
// Main types: [Service], one API: its table of shapes and what its operations do; [Handler], which finds out what a request is for
// and who sends it, reads it, and writes the answer; [Call], one request as an operation sees it; [Error], what a client is told.
//
// A service is a package below this one with a function that returns its Service:
//
//	func New(b *bus.Bus) *wire.Service {
//		s := &service{bus: b}
//		return &wire.Service{
//			Name: "sqs", // of its table; see shape/services.txt, and `go generate ./internal/wire/shape` after a change
//			Operations: map[string]wire.Operation{
//				"GetQueueUrl": wire.Op(s.getQueueURL),
//			},
//		}
//	}
//
//	type getQueueURLInput struct{ QueueName string } // the members that are used; package shape says which Go types they may have
//	type getQueueURLOutput struct{ QueueUrl string }
//
//	func (s *service) getQueueURL(ctx context.Context, c *wire.Call, in *getQueueURLInput) (*getQueueURLOutput, error)
//
// What an operation returns as an error is a *wire.Error with the service's own code, or any other, which Service.Translate turns into
// one, and else becomes the service's internal error. [Raw] is for operations that read and write bytes themselves.
// Required members are checked before an operation is called, with Strict the enums and bounds of the table too.
//
// It is tested without a server by package wiretest: wiretest.New(t, service) gives an endpoint and credentials for real clients.
// It is served by internal/server/wire.go, where one line adds it.
//
// Guarantees:
//
//  1. No operation runs for a request whose signature does not hold, except those that a service names as Anonymous.
//  2. A request is answered in the protocol it came in. Every error has AWS's form of it, also for services and operations that are not here.
//  3. A request body is buffered to a limit, or streamed.
//
// It knows nothing of sandboxes, ports and where keys are kept.
package wire
