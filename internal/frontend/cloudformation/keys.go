package cloudformation

import (
	"slices"
	"strings"
)

// knownKeys are the properties of the types that an App is made of; "" for every other type, whose properties
// are kept unread. From the CloudFormation resource specification.
func knownKeys(typ string) string {
	switch typ {
	case "AWS::Lambda::Function":
		return "Architectures CapacityProviderConfig Code CodeSigningConfigArn DeadLetterConfig Description DurableConfig Environment EphemeralStorage FileSystemConfigs FunctionName FunctionScalingConfig Handler ImageConfig KmsKeyArn Layers LoggingConfig MemorySize PackageType PublishToLatestPublished RecursiveLoop ReservedConcurrentExecutions Role Runtime RuntimeManagementConfig SnapStart Tags TenancyConfig Timeout TracingConfig VpcConfig"
	case "AWS::Lambda::Function Environment":
		return "Variables"
	case "AWS::Lambda::Version":
		return "CodeSha256 Description FunctionName FunctionScalingConfig ProvisionedConcurrencyConfig RuntimePolicy"
	case "AWS::Lambda::Alias":
		return "Description FunctionName FunctionVersion Name ProvisionedConcurrencyConfig RoutingConfig"
	case "AWS::Lambda::EventInvokeConfig":
		return "DestinationConfig FunctionName MaximumEventAgeInSeconds MaximumRetryAttempts Qualifier"
	case "AWS::Lambda::Url":
		return "AuthType Cors InvokeMode Qualifier TargetFunctionArn"
	case "AWS::Lambda::EventSourceMapping":
		return "AmazonManagedKafkaEventSourceConfig BatchSize BisectBatchOnFunctionError DestinationConfig DocumentDBEventSourceConfig Enabled EventSourceArn FilterCriteria FunctionName FunctionResponseTypes KmsKeyArn LoggingConfig MaximumBatchingWindowInSeconds MaximumRecordAgeInSeconds MaximumRetryAttempts MetricsConfig ParallelizationFactor ProvisionedPollerConfig Queues ScalingConfig SelfManagedEventSource SelfManagedKafkaEventSourceConfig SourceAccessConfigurations StartingPosition StartingPositionTimestamp Tags Topics TumblingWindowInSeconds"
	case "AWS::ApiGateway::RestApi":
		return "ApiKeySourceType BinaryMediaTypes Body BodyS3Location CloneFrom Description DisableExecuteApiEndpoint EndpointAccessMode EndpointConfiguration FailOnWarnings MinimumCompressionSize Mode Name Parameters Policy SecurityPolicy Tags"
	case "AWS::ApiGateway::Resource":
		return "ParentId PathPart RestApiId"
	case "AWS::ApiGateway::Method":
		return "ApiKeyRequired AuthorizationScopes AuthorizationType AuthorizerId HttpMethod Integration MethodResponses OperationName RequestModels RequestParameters RequestValidatorId ResourceId RestApiId"
	case "AWS::ApiGateway::Method Integration":
		return "CacheKeyParameters CacheNamespace ConnectionId ConnectionType ContentHandling Credentials IntegrationHttpMethod IntegrationResponses IntegrationTarget PassthroughBehavior RequestParameters RequestTemplates ResponseTransferMode TimeoutInMillis Type Uri"
	case "AWS::ApiGateway::Deployment":
		return "DeploymentCanarySettings Description RestApiId StageDescription StageName"
	case "AWS::ApiGateway::Stage":
		return "AccessLogSetting CacheClusterEnabled CacheClusterSize CanarySetting ClientCertificateId DeploymentId Description DocumentationVersion MethodSettings RestApiId StageName Tags TracingEnabled Variables"
	case "AWS::ApiGateway::Authorizer":
		return "AuthType AuthorizerCredentials AuthorizerResultTtlInSeconds AuthorizerUri IdentitySource IdentityValidationExpression Name ProviderARNs RestApiId Type"
	case "AWS::ApiGatewayV2::Api":
		return "ApiKeySelectionExpression BasePath Body BodyS3Location CorsConfiguration CredentialsArn Description DisableExecuteApiEndpoint DisableSchemaValidation FailOnWarnings IpAddressType Name ProtocolType RouteKey RouteSelectionExpression Tags Target Version"
	case "AWS::ApiGatewayV2::Api CorsConfiguration":
		return "AllowCredentials AllowHeaders AllowMethods AllowOrigins ExposeHeaders MaxAge"
	case "AWS::ApiGatewayV2::Integration":
		return "ApiId ConnectionId ConnectionType ContentHandlingStrategy CredentialsArn Description IntegrationMethod IntegrationSubtype IntegrationType IntegrationUri PassthroughBehavior PayloadFormatVersion RequestParameters RequestTemplates ResponseParameters TemplateSelectionExpression TimeoutInMillis TlsConfig"
	case "AWS::ApiGatewayV2::Route":
		return "ApiId ApiKeyRequired AuthorizationScopes AuthorizationType AuthorizerId ModelSelectionExpression OperationName RequestModels RequestParameters RouteKey RouteResponseSelectionExpression Target"
	case "AWS::ApiGatewayV2::Stage":
		return "AccessLogSettings ApiId AutoDeploy ClientCertificateId DefaultRouteSettings DeploymentId Description RouteSettings StageName StageVariables Tags"
	case "AWS::ApiGatewayV2::Authorizer":
		return "ApiId AuthorizerCredentialsArn AuthorizerPayloadFormatVersion AuthorizerResultTtlInSeconds AuthorizerType AuthorizerUri EnableSimpleResponses IdentitySource IdentityValidationExpression JwtConfiguration Name"
	}
	return ""
}

// checkKeys warns of properties that a type does not have. "Type Inner" is an inner map of a type.
func (l *loader) checkKeys(typ string, n *Node) {
	known := strings.Fields(knownKeys(typ))
	if len(known) == 0 {
		return
	}
	typ, inner, _ := strings.Cut(typ, " ")
	if inner != "" {
		inner = " in " + inner
	}
	for _, en := range mapEntries(n) {
		if !slices.Contains(known, en.Key) {
			l.diags.Warnf(en.Pos, "unknown-key", nearHint(en.Key, known), "%s has no property %q%s", typ, en.Key, inner)
		}
	}
}
