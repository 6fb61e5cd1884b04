module example.com/gorpc

go 1.21

require github.com/aws/aws-lambda-go v1.11.1
