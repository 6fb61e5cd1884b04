package serverless

import (
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

func words(s string) []string { return strings.Fields(s) }

// The keys of each part: those of Serverless 3 and the older ones it still reads.
var (
	topKeys = words(`service provider functions resources package plugins custom layers outputs params stages useDotenv
		frameworkVersion configValidationMode console dashboard deprecationNotificationMode disabledDeprecations
		projectDir variablesResolutionMode unresolvedVariablesNotificationMode enableLocalInstallationFallback
		org app tenant tenantName description build licenseKey`)
	providerKeys = words(`name alb apiGateway apiKeys apiName architecture cfLogs cfnRole cloudFront credentials deploymentBucket
		deploymentMethod deploymentPrefix disableRollback ecr endpointType environment eventBridge httpApi iam
		iamManagedPolicies iamRoleStatements iamRoleStatementsInherit kinesis kmsKeyArn lambdaHashingVersion layers logDataProtectionPolicy
		logRetentionInDays logs memorySize minimumCompressionSize notificationArns profile region resourcePolicy role
		rolePermissionsBoundary rollbackConfiguration runtime runtimeManagement s3 stackName stackParameters stackPolicy
		stackTags stage tags timeout tracing usagePlan variableSyntax versionFunctions vpc vpcEndpointIds websocket
		websocketsApiName websocketsApiRouteSelectionExpression websocketsDescription xrayTracing build`)
	functionKeys = words(`name events architecture awsKmsKeyArn condition dependsOn description destinations disableLogs environment
		ephemeralStorageSize fileSystemConfig handler image kmsKeyArn snapStart layers logRetentionInDays
		logDataProtectionPolicy maximumEventAge maximumRetryAttempts memorySize onError package provisionedConcurrency
		reservedConcurrency role runtime runtimeManagement tags timeout tracing url versionFunction vpc httpApi logs`)
	packageKeys = words(`artifact exclude excludeDevDependencies include individually path patterns disable`)
	httpAPIKeys = words(`authorizers cors id name payload timeout metrics useProviderTags disableDefaultEndpoint shouldStartNameWithService`)
	apiGateway  = words(`apiKeys apiKeySourceType binaryMediaTypes description disableDefaultEndpoint metrics minimumCompressionSize
		resourcePolicy restApiId restApiResources restApiRootResourceId request shouldStartNameWithService stage usagePlan
		websocketApiId timeoutInMillis`)
	urlKeys = words(`authorizer cors invokeMode`)
)

// eventKeys are the keys of each event kind's object form. A nil entry means the form is free.
var eventKeys = map[string][]string{
	"schedule":             words(`rate enabled name description input inputPath inputTransformer method timezone`),
	"s3":                   words(`bucket event existing forceDeploy rules`),
	"http":                 words(`async authorizer connectionId connectionType cors integration method operationId path private request response documentation`),
	"websocket":            words(`route routeResponseSelectionExpression authorizer`),
	"sns":                  words(`arn topicName displayName filterPolicy filterPolicyScope redrivePolicy`),
	"stream":               words(`arn type batchSize parallelizationFactor startingPosition startingPositionTimestamp enabled consumer batchWindow maximumRetryAttempts bisectBatchOnFunctionError maximumRecordAgeInSeconds functionResponseType destinations tumblingWindowInSeconds filterPatterns`),
	"kafka":                words(`accessConfigurations batchSize maximumBatchingWindow enabled bootstrapServers startingPosition startingPositionTimestamp topic consumerGroupId filterPatterns`),
	"activemq":             words(`arn basicAuthArn batchSize maximumBatchingWindow enabled queue filterPatterns`),
	"rabbitmq":             words(`arn basicAuthArn batchSize maximumBatchingWindow enabled queue virtualHost filterPatterns`),
	"msk":                  words(`arn batchSize maximumBatchingWindow enabled startingPosition startingPositionTimestamp topic saslScram512 consumerGroupId filterPatterns`),
	"alb":                  words(`authorizer conditions healthCheck listenerArn multiValueHeaders priority targetGroupName`),
	"alexaSkill":           words(`appId enabled`),
	"alexaSmartHome":       words(`appId enabled`),
	"iot":                  words(`sql sqlVersion name enabled description`),
	"iotFleetProvisioning": words(`enabled provisioningRoleArn templateBody templateName`),
	"cloudwatchEvent":      words(`event input inputPath inputTransformer description name enabled`),
	"cloudwatchLog":        words(`logGroup filter`),
	"cognitoUserPool":      words(`pool trigger existing forceDeploy kmsKeyId`),
	"eventBridge":          words(`eventBus schedule pattern input inputPath inputTransformer retryPolicy deadLetterQueueArn enabled name description`),
	"sqs":                  words(`arn batchSize enabled maximumBatchingWindow functionResponseType filterPatterns maximumConcurrency`),
	"cloudFront":           words(`behavior cachePolicy eventType isDefaultOrigin includeBody origin pathPattern`),
	"httpApi":              words(`authorizer method path timeout`),
}

// checkKeys looks at the fixed parts of the document. `custom` is free.
func (c *compiler) checkKeys() {
	known := topKeys
	for _, p := range c.pluginList() {
		known = append(slices.Clip(known), plugins[p.name].top...)
	}
	for _, e := range c.doc.Entries {
		if slices.Contains(known, e.Key) {
			continue
		}
		if plugin := pluginOfKey(e.Key); plugin != "" {
			c.l.Warnf(e.Pos, "plugin-key", "It has no effect without a plugin's code; the functions of the project run all the same.",
				"%q belongs to the plugin %s and is not read", e.Key, plugin)
			continue
		}
		c.misplaced(e, known)
	}
	prov := providerKeys
	for _, p := range c.pluginList() {
		prov = append(slices.Clip(prov), plugins[p.name].provider...)
	}
	c.keys(c.provider, "in provider", prov)
	c.keys(c.provider.Get("httpApi"), "in provider.httpApi", httpAPIKeys)
	c.keys(c.provider.Get("apiGateway"), "in provider.apiGateway", apiGateway)
	c.keys(c.doc.Get("package"), "in package", packageKeys)
	c.keys(c.provider.At("iam"), "in provider.iam", words("role deploymentRole"))
	c.keys(c.provider.At("iam", "role"), "in provider.iam.role",
		words("name path statements managedPolicies permissionsBoundary permissionBoundary tags mode Ref Fn::GetAtt Fn::ImportValue Fn::Sub Fn::Join Fn::If"))
	c.keys(c.provider.Get("vpc"), "in provider.vpc", words("securityGroupIds subnetIds ipv6AllowedForDualStack Fn::If Ref"))
}

// misplaced reports an unknown top-level key; one whose correct form carries the app's functions or its
// provider cannot mean anything else, so it is an error.
func (c *compiler) misplaced(e cfn.Entry, known []string) {
	near := diag.Nearest(e.Key, known)
	if (near == "functions" || near == "provider") && c.doc.Get(near) == nil {
		c.l.Errorf(e.Pos, "unknown-key", "Did you mean \""+near+"\"?", "unknown key %q at the top of the file", e.Key)
		return
	}
	c.unknown(e, "at the top of the file", known)
}
