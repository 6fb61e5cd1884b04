package sam

import (
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// knownKeys are the properties of SAM's resources. From the SAM specification.
func knownKeys(typ string) string {
	switch strings.TrimPrefix(typ, prefix) {
	case "Function":
		return "Architectures AssumeRolePolicyDocument AutoPublishAlias AutoPublishAliasAllProperties AutoPublishCodeSha256 CapacityProviderConfig CodeSigningConfigArn CodeUri DeadLetterQueue DeploymentPreference Description DurableConfig Environment EphemeralStorage EventInvokeConfig Events FileSystemConfigs FunctionName FunctionScalingConfig FunctionUrlConfig Handler ImageConfig ImageUri InlineCode KmsKeyArn Layers LoggingConfig MemorySize PackageType PermissionsBoundary Policies PropagateTags ProvisionedConcurrencyConfig PublishToLatestPublished RecursiveLoop ReservedConcurrentExecutions Role RolePath Runtime RuntimeManagementConfig SnapStart SourceKMSKeyArn Tags TenancyConfig Timeout Tracing VersionDeletionPolicy VersionDescription VpcConfig"
	case "Api":
		return "AccessLogSetting AlwaysDeploy ApiKeySourceType Auth BinaryMediaTypes CacheClusterEnabled CacheClusterSize CanarySetting Cors DefinitionBody DefinitionUri Description DisableExecuteApiEndpoint Domain EndpointAccessMode EndpointConfiguration FailOnWarnings GatewayResponses MergeDefinitions MethodSettings MinimumCompressionSize Mode Models Name OpenApiVersion Policy PropagateTags SecurityPolicy StageName Tags TracingEnabled Variables"
	case "HttpApi":
		return "AccessLogSettings Auth CorsConfiguration DefaultRouteSettings DefinitionBody DefinitionUri Description DisableExecuteApiEndpoint Domain FailOnWarnings Name PropagateTags RouteSettings StageName StageVariables Tags"
	case "SimpleTable":
		return "PointInTimeRecoverySpecification PrimaryKey ProvisionedThroughput SSESpecification TableName Tags"
	case "LayerVersion":
		return "CompatibleArchitectures CompatibleRuntimes ContentUri Description LayerName LicenseInfo PublishLambdaVersion RetentionPolicy"
	case "StateMachine":
		return "AutoPublishAlias Definition DefinitionSubstitutions DefinitionUri DeploymentPreference Events Logging Name PermissionsBoundary Policies PropagateTags Role RolePath Tags Tracing Type UseAliasAsEventTarget"
	}
	return ""
}

// checkKeys warns of properties that a type does not have.
func (c *compiler) checkKeys(typ string, n *cfn.Node) {
	known := strings.Fields(knownKeys(typ))
	if len(known) == 0 {
		return
	}
	for _, e := range entries(n) {
		if !slices.Contains(known, e.Key) && !strings.HasPrefix(e.Key, "Fn::") {
			c.l.Warnf(e.Pos, "unknown-key", near(e.Key, known, ""), "%s has no property %q", typ, e.Key)
		}
	}
}
